// What the demo does with deployed functions, and how it finds out whether the answers are right.
import { readFile } from 'node:fs/promises'
import sharp from 'sharp'
import {
  checkPrices,
  generateOptions,
  optionsPerPayload,
  packOptions,
  type PriceCheck,
  unpackPrices,
} from '../black-scholes/options.js'
import { checkThumbnail, decode, type Raster } from '../thumbnail/check.js'
import { progress } from './report.js'

/** The part of deployed functions that the steps use. */
export interface Callable {
  allocate(bytes: number): Uint8Array
  invokeSync(name: string, input: Uint8Array, output: Uint8Array): number
  map(name: string, inputs: readonly Uint8Array[]): Promise<Uint8Array[]>
}

export interface EchoResult {
  readonly samples: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly problems: readonly string[]
}

/** Round trips of 8 bytes to a spinning worker, one after the other. */
export function measureEcho(functions: Callable, samples = 10_000): EchoResult {
  const warmUp = Math.ceil(samples / 5)
  const times = new Float64Array(samples)
  const problems: string[] = []
  // Registered memory: the device reads the one and writes the other in place.
  const input = functions.allocate(8)
  const output = functions.allocate(8)
  const question = new DataView(input.buffer, input.byteOffset, 8)
  const answer = new DataView(output.buffer, output.byteOffset, 8)
  for (let call = -warmUp; call < samples; call += 1) {
    // Another number every time, so that an answer left over from the call before is noticed.
    question.setFloat64(0, Math.PI * call)
    const start = performance.now()
    const bytes = functions.invokeSync('echo', input, output)
    const end = performance.now()
    if (call >= 0) times[call] = end - start
    if ((bytes !== 8 || answer.getFloat64(0) !== Math.PI * call) && problems.length < 5) {
      problems.push(`call ${call}: ${bytes} bytes, ${answer.getFloat64(0)}`)
    }
  }
  times.sort()
  return { samples, p50Ms: percentile(times, 0.5), p99Ms: percentile(times, 0.99), problems }
}

function percentile(sorted: Float64Array, fraction: number): number {
  return sorted[Math.max(0, Math.ceil(fraction * sorted.length) - 1)]!
}

export interface Photograph {
  readonly name: string
  readonly jpeg: Uint8Array
  readonly raster: Raster
}

/** The photograph and its four quarters: different pictures, so that exchanged answers show. */
export async function loadAlbum(path: string): Promise<Photograph[]> {
  const jpeg = await readFile(path)
  const raster = await decode(jpeg)
  const album = [{ name: 'photo', jpeg: new Uint8Array(jpeg), raster }]
  const [width, height] = [Math.floor(raster.width / 2), Math.floor(raster.height / 2)]
  const raw = { width: raster.width, height: raster.height, channels: 3 as const }
  for (const [name, left, top] of [
    ['upper left', 0, 0],
    ['upper right', width, 0],
    ['lower left', 0, height],
    ['lower right', width, height],
  ] as const) {
    const quarter = await sharp(raster.pixels, { raw })
      .extract({ left, top, width, height })
      .jpeg({ quality: 90 })
      .toBuffer()
    album.push({ name, jpeg: new Uint8Array(quarter), raster: await decode(quarter) })
  }
  return album
}

export interface ThumbnailResult {
  readonly calls: number
  readonly elapsedMs: number
  readonly bytesIn: number
  readonly bytesOut: number
  readonly worstPsnr: number
  readonly problems: readonly string[]
}

/** Every photograph in both sizes of the package, then each answer against its original. */
export async function makeThumbnails(
  functions: Callable,
  album: readonly Photograph[],
): Promise<ThumbnailResult> {
  const jpegs = album.map(({ jpeg }) => jpeg)
  const start = performance.now()
  const small = await progress('thumbnails', () => functions.map('thumbnail', jpegs))
  const large = await progress('previews', () => functions.map('preview', jpegs))
  const elapsedMs = performance.now() - start

  const problems: string[] = []
  let worstPsnr = Infinity
  await progress('comparing them with the originals', async () => {
    for (const [answers, side] of [
      [small, 200],
      [large, 800],
    ] as const) {
      for (const [index, { name, raster }] of album.entries()) {
        const check = await checkThumbnail(raster, answers[index] ?? new Uint8Array(), side)
        worstPsnr = Math.min(worstPsnr, check.psnr)
        problems.push(...check.problems.map((problem) => `${name}, ${side}: ${problem}`))
      }
    }
  })
  const total = (arrays: readonly Uint8Array[]) =>
    arrays.reduce((sum, { length }) => sum + length, 0)
  return {
    calls: 2 * album.length,
    elapsedMs,
    bytesIn: 2 * total(jpegs),
    bytesOut: total(small) + total(large),
    worstPsnr,
    problems,
  }
}

export interface PricingResult extends PriceCheck {
  readonly calls: number
  readonly elapsedMs: number
}

/** Prices an option set in calls of at most `payloadBytes`, then checks every price. */
export async function priceOptions(
  functions: Callable,
  count: number,
  payloadBytes: number,
): Promise<PricingResult> {
  const [set, payloads] = await progress(`generating ${count} options`, () => {
    const set = generateOptions(count)
    const step = optionsPerPayload(payloadBytes)
    const payloads = Array.from({ length: Math.ceil(count / step) }, (_, call) =>
      packOptions(set, call * step, Math.min((call + 1) * step, count)),
    )
    return [set, payloads] as const
  })
  const start = performance.now()
  const answers = await progress('prices', () => functions.map('price', payloads))
  const elapsedMs = performance.now() - start
  const check = await progress('pricing them again by other methods', () =>
    checkPrices(set, unpackPrices(answers)),
  )
  return { ...check, calls: payloads.length, elapsedMs }
}
