// A zip file of files that are compressed already. The files themselves are not copied.

import {crc32} from "./png.js";

const MOST = 0xffffffff; // bytes, of a zip file without the extension for larger ones

/** Make a zip file as a Blob; `files` is a list of {name, file}. Equal names get numbers. */
export async function zip(files) {
  const parts = [], directory = [], names = new Set();
  let at = 0;
  for (const {name, file} of files) {
    const stem = name.replace(/\.[^./]*$/, ""), suffix = name.slice(stem.length);
    let free = name;
    for (let n = 2; names.has(free); n++) free = `${stem}-${n}${suffix}`;
    names.add(free);
    const bytes = new TextEncoder().encode(free);
    const crc = crc32(new Uint8Array(await file.arrayBuffer()));
    if (at + file.size > MOST - 1e7 || files.length > 0xffff) {
      throw new Error("The photos together are more than a zip file can hold (4 GB). Download them one by one.");
    }
    // version 2.0, names in UTF-8, stored, 1980-01-01, CRC, the two sizes, the length of the name
    const common = [[2, 20], [2, 0x800], [2, 0], [2, 0], [2, 33], [4, crc], [4, file.size], [4, file.size], [2, bytes.length], [2, 0]];
    parts.push(record([[4, 0x04034b50], ...common]), bytes, file);
    directory.push(record([[4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]]), bytes);
    at += 30 + bytes.length + file.size;
  }
  const size = directory.reduce((sum, part) => sum + part.byteLength, 0), n = files.length;
  const end = record([[4, 0x06054b50], [2, 0], [2, 0], [2, n], [2, n], [4, size], [4, at], [2, 0]]);
  return new Blob([...parts, ...directory, end], {type: "application/zip"});
}

/** Numbers of 2 or 4 bytes, the lowest byte first. */
function record(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return view.buffer;
}
