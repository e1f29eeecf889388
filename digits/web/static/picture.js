// Decodes pictures that the browser can show, and makes smaller ones of them.

const LARGE = 1 << 20; // bytes; larger pictures, such as a phone's photographs, are reduced before sending
const REDUCED = 2560; // their longer side in pixels after that

// a picture for the pad: {blob, bitmap}, the blob reduced if it is large, the bitmap null if the browser can't show
// the format, which the service may support
export async function decode(blob) {
  try {
    const bitmap = await createImageBitmap(blob);
    if (blob.size > LARGE) blob = await reduced(bitmap);
    return { blob, bitmap };
  } catch {
    return { blob, bitmap: null };
  }
}

function reduced(bitmap) {
  const scale = Math.min(1, REDUCED / Math.max(bitmap.width, bitmap.height));
  const small = new OffscreenCanvas(Math.ceil(bitmap.width * scale), Math.ceil(bitmap.height * scale));
  const context = small.getContext("2d");
  // JPEG has no transparency, so transparent parts must become white
  context.fillStyle = "#fff";
  context.fillRect(0, 0, small.width, small.height);
  context.drawImage(bitmap, 0, 0, small.width, small.height);
  return small.convertToBlob({ type: "image/jpeg", quality: 0.9 });
}

// a small bitmap, made outside the main thread; null if the browser can't show the format
export async function thumbnail(blob, width) {
  try {
    return await createImageBitmap(blob, { resizeWidth: width, resizeQuality: "medium" });
  } catch {
    return null;
  }
}

// the picture in a data: URL
export function ofDataUrl(url) {
  const [head, text] = url.split(",");
  return new Blob([Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0))], { type: head.slice(5).split(";")[0] });
}
