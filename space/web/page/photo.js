// A file as upright 8-bit pixels, whose colours are not multiplied by alpha.

export const MOST_PIXELS = 50_000_000; // two copies of them take 400 MB
const STRIP_PIXELS = 2_000_000; // read at once: phones limit the size of a canvas, not the number of reads

/** Decode a file: {bitmap, width, height, data (RGBA), transparent}; the caller closes the bitmap. */
export async function readPhoto(file) {
  if (!file.size) throw new Error("This file is empty (0 bytes). Choose a photo.");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file); // upright by its EXIF orientation
  } catch {
    throw new Error("This file cannot be read as a picture. JPEG, PNG, WebP, AVIF and GIF files work; "
      + "HEIC files work in browsers that can show them.");
  }
  const {width, height} = bitmap;
  if (width * height > MOST_PIXELS) {
    bitmap.close();
    throw new Error(`This photo has ${Math.round(width * height / 1e6)} megapixels, and this page takes up to `
      + `${MOST_PIXELS / 1e6}. Make it smaller and choose it again.`);
  }
  try {
    return {bitmap, width, height, ...readPixels(bitmap)};
  } catch (error) {
    bitmap.close();
    if (!(error instanceof RangeError || error instanceof DOMException)) throw error;
    throw new Error(`There is not enough memory for a photo of ${width} × ${height} pixels. Make it smaller and `
      + "choose it again.");
  }
}

function readPixels(bitmap) {
  const {width, height} = bitmap;
  const data = new Uint8ClampedArray(4 * width * height);
  const rows = Math.min(Math.max(Math.trunc(STRIP_PIXELS / width), 1), height);
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", {willReadFrequently: true});
  checkReading(context);
  for (let top = 0; top < height; top += rows) {
    context.clearRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    data.set(context.getImageData(0, 0, width, Math.min(rows, height - top)).data, 4 * top * width);
  }
  let transparent = false;
  for (let i = 3; i < data.length; i += 4) {
    if (data[i] !== 255) {
      transparent = true;
      break;
    }
  }
  return {data, transparent};
}

/** Some browsers give a page noise instead of pixels, so that it cannot tell its visitors apart. */
function checkReading(context) {
  context.fillStyle = "rgb(18, 52, 86)";
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  if (Math.abs(red - 18) + Math.abs(green - 52) + Math.abs(blue - 86) > 8) {
    throw new Error("This browser does not let pages read the pixels of a photo (protection against fingerprinting). "
      + "Allow it for this page; no photo leaves your device.");
  }
}

/** The pixels as the network sees them: a transparent photo on white. */
export function opaque({data, width, height, transparent}) {
  const picture = {data, width, height, stride: 4, channels: 3};
  if (!transparent) return picture;
  const white = new Uint8ClampedArray(3 * width * height);
  for (let i = 0, to = 0; i < data.length; i += 4) {
    const alpha = data[i + 3] / 255;
    for (let c = 0; c < 3; c++) white[to++] = 255 + alpha * (data[i + c] - 255);
  }
  return {data: white, width, height, stride: 3, channels: 3};
}
