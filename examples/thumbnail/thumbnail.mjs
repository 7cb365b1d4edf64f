// A node function package: JPEG in, smaller JPEG out.
//
// rfaas stores a package under its content hash and loads it from there. `sharp` is a native module
// and cannot be bundled into this file; it is found in the node_modules folder that the executor
// manager offers to node packages.
import sharp from 'sharp'

// A worker owns one core and runs one call at a time: further threads would only share that core,
// and no picture is decoded twice.
sharp.concurrency(1)
sharp.cache(false)

/** The picture as its camera's EXIF orientation shows it, made to fit into 200 × 200 pixels. */
export const thumbnail = (input) => shrink(input, 200)

/** The same for 800 × 800 pixels. */
export const preview = (input) => shrink(input, 800)

function shrink(jpeg, side) {
  return sharp(jpeg)
    .rotate()
    .resize({ width: side, height: side, fit: 'inside', withoutEnlargement: true })
    .jpeg({ quality: 85 })
    .toBuffer()
}
