// Asks a gateway for every dataset and gives it some commands; prints what NDNts reads of the answers as JSON.
import {
  ChannelStatus,
  ControlParameters,
  CsInfo,
  FaceQuery,
  FaceStatus,
  GeneralStatus,
  invoke,
  invokeCsErase,
  list,
  RibEntry,
  StrategyChoice,
} from "@ndn/nfdmgmt";
import { UnixTransport } from "@ndn/node-transport";
import { Name } from "@ndn/packet";

const face = await UnixTransport.createFace({ l3: { local: true } }, new URL(process.env.NDNTS_UPLINK).pathname);

async function command(verb, parameters) {
  const response = await invoke(verb, parameters);
  const { name, faceId, origin, cost, flags, expirationPeriod, strategy } =
    ControlParameters.decodeFromResponseBody(response);
  return {
    status: response.statusCode,
    text: response.statusText,
    name: name?.toString(),
    strategy: strategy?.toString(),
    faceId,
    origin,
    cost,
    flags,
    expirationPeriod,
  };
}

const results = {
  register: await command("rib/register", { name: new Name("/ndnts/a"), origin: 65, cost: 3, expirationPeriod: 60000 }),
  deep: await command("rib/register", { name: new Name(`/ndnts${"/x".repeat(40)}`) }),
  strategy: await command("strategy-choice/set", {
    name: new Name("/ndnts"),
    strategy: new Name("/localhost/nfd/strategy/multicast"),
  }),
  update: await command("faces/update", { flags: 1, mask: 1 }),
  erased: await invokeCsErase(new Name("/ndnts/nothing")),
};
results.status = await list(GeneralStatus);
results.faces = await list(FaceStatus);
results.found = await list(FaceQuery({ faceId: results.register.faceId }));
results.channels = await list(ChannelStatus);
results.cs = await list(CsInfo);
results.strategies = (await list(StrategyChoice)).map((row) => [row.name.toString(), row.strategy.toString()]);
results.routes = (await list(RibEntry)).map((row) => [row.name.toString(), row.route]);
results.unregister = await command("rib/unregister", { name: new Name("/ndnts/a"), origin: 65 });

console.log(JSON.stringify(results, (_, value) => (typeof value === "bigint" ? Number(value) : value)));
face.close();
