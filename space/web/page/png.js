// PNG files without a canvas, which would multiply the colours by alpha, and on phones has a small largest size.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const UP = 2; // the filter "Up" subtracts from each byte the one above it
const STRIP = 1 << 20; // bytes that are filtered at once

const TABLE = Uint32Array.from({length: 256}, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/**
 * The PNG file of a picture as a Blob.
 * @param fill called with an array, the first row and the number of rows; it writes their pixels.
 * @param channels 3 for RGB, 4 for RGBA.
 */
export async function encodePng(width, height, channels, fill) {
  const head = new DataView(new ArrayBuffer(13));
  head.setUint32(0, width);
  head.setUint32(4, height);
  head.setUint8(8, 8);
  head.setUint8(9, channels === 4 ? 6 : 2);
  const parts = [new Uint8Array(SIGNATURE), ...chunk("IHDR", new Uint8Array(head.buffer))];
  const zlib = new CompressionStream("deflate"), writer = zlib.writable.getWriter();
  const reader = zlib.readable.getReader();
  const read = (async () => {
    for (let got = await reader.read(); !got.done; got = await reader.read()) parts.push(...chunk("IDAT", got.value));
  })();
  const write = async () => {
    const line = width * channels, rows = Math.max(Math.trunc(STRIP / line), 1);
    const pixels = new Uint8Array((rows + 1) * line); // the first row is the one above the strip
    for (let top = 0; top < height; top += rows) {
      const n = Math.min(rows, height - top);
      fill(pixels.subarray(line), top, n);
      const filtered = new Uint8Array(n * (line + 1));
      for (let y = 0, to = 0, at = line; y < n; y++) {
        filtered[to++] = UP;
        for (const end = at + line; at < end; at++, to++) filtered[to] = pixels[at] - pixels[at - line];
      }
      pixels.copyWithin(0, n * line, (n + 1) * line);
      await writer.write(filtered);
    }
    await writer.close();
  };
  await Promise.all([write(), read]);
  return new Blob([...parts, ...chunk("IEND", new Uint8Array(0))], {type: "image/png"});
}

/** The CRC-32 of bytes, or of more bytes after those with the checksum `before`. */
export function crc32(data, before = 0) {
  let crc = ~before;
  for (let i = 0; i < data.length; i++) crc = TABLE[(crc ^ data[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

function chunk(name, data) {
  const head = new DataView(new ArrayBuffer(8)), tail = new DataView(new ArrayBuffer(4));
  head.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) head.setUint8(4 + i, name.charCodeAt(i));
  tail.setUint32(0, crc32(data, crc32(new Uint8Array(head.buffer, 4))));
  return [head.buffer, data, tail.buffer];
}
