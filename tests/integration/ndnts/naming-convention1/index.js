// The naming conventions of 2014, which ndncat offers and no test uses.
export const Segment = undefined;
export const Version = undefined;
