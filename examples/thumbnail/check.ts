// Is a thumbnail the picture that was sent? Computed without the resizing of sharp: the original's
// pixels are averaged over the area that each pixel of the thumbnail covers, in plain TypeScript.
import sharp from 'sharp'

/** Decoded pixels: 8 bits per channel, red, green, blue. */
export interface Raster {
  readonly width: number
  readonly height: number
  readonly pixels: Uint8Array
}

export interface ThumbnailCheck {
  readonly width: number
  readonly height: number
  /** Peak signal-to-noise ratio against the averaged original, in dB. */
  readonly psnr: number
  /** Empty if the thumbnail is right. */
  readonly problems: readonly string[]
}

/** Below this, it is not the same picture. Another resampling filter and the loss of JPEG leave 32
 * to 44 dB on the demo's photographs; two parts of the same photograph have 7 to 17 dB. */
const leastPsnr = 28

export async function decode(jpeg: Uint8Array): Promise<Raster> {
  const { data, info } = await sharp(jpeg)
    .rotate()
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true })
  return { width: info.width, height: info.height, pixels: data }
}

/** Checks format, size and content of `thumbnail`, which is to fit into `side` × `side` pixels. */
export async function checkThumbnail(
  original: Raster,
  thumbnail: Uint8Array,
  side: number,
): Promise<ThumbnailCheck> {
  if (!(thumbnail[0] === 0xff && thumbnail[1] === 0xd8)) {
    return { width: 0, height: 0, psnr: 0, problems: ['not a JPEG: no start-of-image marker'] }
  }
  const small = await decode(thumbnail)
  const { width, height } = small
  const scale = Math.min(1, side / Math.max(original.width, original.height))
  const problems: string[] = []
  const fits = (got: number, full: number) => Math.abs(got - full * scale) < 1
  if (!fits(width, original.width) || !fits(height, original.height)) {
    const wanted = `${(original.width * scale).toFixed(1)} × ${(original.height * scale).toFixed(1)}`
    problems.push(`${width} × ${height} pixels; ${wanted} were wanted`)
  }
  const psnr = signalToNoise(average(original, width, height), small.pixels)
  // NaN fails as well.
  if (!(psnr >= leastPsnr)) {
    problems.push(`PSNR ${psnr.toFixed(1)} dB; at least ${leastPsnr} dB were wanted`)
  }
  return { width, height, psnr, problems }
}

/** Reduces a picture by averaging areas: first along rows, then along columns. */
export function average({ width, height, pixels }: Raster, toWidth: number, toHeight: number) {
  const horizontal = coverage(width, toWidth)
  const vertical = coverage(height, toHeight)
  const row = new Float64Array(toWidth * 3)
  const result = new Float64Array(toWidth * toHeight * 3)
  // One source row at a time: it is narrowed once, then added to the rows that it touches.
  for (let y = 0; y < height; y += 1) {
    row.fill(0)
    let source = y * width * 3
    for (let x = 0; x < width; x += 1, source += 3) {
      for (const [to, weight] of horizontal[x]!) {
        row[3 * to]! += weight * pixels[source]!
        row[3 * to + 1]! += weight * pixels[source + 1]!
        row[3 * to + 2]! += weight * pixels[source + 2]!
      }
    }
    for (const [to, weight] of vertical[y]!) {
      const target = to * toWidth * 3
      for (let i = 0; i < row.length; i += 1) result[target + i]! += weight * row[i]!
    }
  }
  return result
}

/** For each source position: the targets that it covers, and its share of each. */
function coverage(from: number, to: number): [target: number, weight: number][][] {
  const length = to / from
  return Array.from({ length: from }, (_, position) => {
    const [start, end] = [position * length, (position + 1) * length]
    const shares: [number, number][] = []
    for (let target = Math.floor(start); target < Math.min(end, to); target += 1) {
      const weight = Math.min(end, target + 1) - Math.max(start, target)
      if (weight > 0) shares.push([target, weight])
    }
    return shares
  })
}

function signalToNoise(expected: Float64Array, actual: Uint8Array): number {
  let squares = 0
  for (let i = 0; i < expected.length; i += 1) squares += (expected[i]! - actual[i]!) ** 2
  return 10 * Math.log10(255 ** 2 / (squares / expected.length))
}
