// What ndncat needs of the package of this name, which the registry does not have: a face to the forwarder that
// NDNTS_UPLINK names (unix:///path), on which producers' prefixes are registered, and an orderly end.
import { enableNfdPrefixReg } from "@ndn/nfdmgmt";
import { UnixTransport } from "@ndn/node-transport";
import { digestSigning } from "@ndn/packet";

let face;

export async function openUplinks() {
  face = await UnixTransport.createFace({ l3: { local: true } }, new URL(process.env.NDNTS_UPLINK).pathname);
  enableNfdPrefixReg(face);
}

export async function getSigner() {
  return digestSigning;
}

const closers = [];
export const exitClosers = {
  push: (...added) => closers.push(...added),
  wait: () => new Promise((resolve) => process.once("SIGTERM", resolve)),
};

export function exitHandler() {
  for (const closer of closers) {
    closer.close();
  }
  face?.close();
}
