// A function for each way in which a JavaScript function can go wrong, and some that go right.
import { appendFileSync, readdirSync, readlinkSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

export function echo(input, output) {
  output.set(input)
  return input.byteLength
}

export const reversed = (input) => Uint8Array.from(input).reverse()

export async function later(input) {
  await sleep(20)
  return input
}

let inside = 0
let mostInside = 0

/** Returns how many calls of it have been in this worker at once so far. */
export async function together() {
  inside += 1
  mostInside = Math.max(mostInside, inside)
  await sleep(100)
  inside -= 1
  return Uint8Array.of(mostInside)
}

export async function failsOrEchoesLater(input) {
  if (input[0] === 0xff) throw new Error('no such record')
  await sleep(20)
  return input
}

/** Sleeps for the milliseconds that the input says. */
export async function sleep_ms(input) {
  await sleep(new DataView(input.buffer, input.byteOffset).getUint32(0, true))
  return 0
}

/** Adds a byte to the file that the input names behind its first four bytes, then sleeps for the
 * milliseconds that those say. */
export async function mark(input) {
  appendFileSync(Buffer.from(input.subarray(4)).toString(), 'x')
  return sleep_ms(input)
}

/** The same, and nothing else meanwhile. */
export function markAlone(input) {
  appendFileSync(Buffer.from(input.subarray(4)).toString(), 'x')
  const ms = new DataView(input.buffer, input.byteOffset).getUint32(0, true)
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
  return 0
}

export function requestId(input, output, context) {
  new DataView(output.buffer, output.byteOffset).setBigUint64(0, context.requestId, true)
  return 8
}

/** What this process has open, a line each. */
export function descriptors() {
  const targets = readdirSync('/proc/self/fd').map((descriptor) => {
    try {
      return readlinkSync(`/proc/self/fd/${descriptor}`)
    } catch {
      return '' // the folder itself, which is closed by now
    }
  })
  return Buffer.from(targets.join('\n'))
}

export function throws() {
  throw new RangeError('the matrix is singular')
}

export async function rejects() {
  await sleep(1)
  throw new Error('the file is gone')
}

export const wrongType = () => 'text'
export const tooMuch = (input, output) => output.byteLength + 1
export const exit = () => process.exit(4)

export function loop() {
  for (;;);
}

export async function waitsForAbort(input, output, { signal }) {
  await new Promise((resolve) => signal.addEventListener('abort', resolve))
  return 0
}

export const never = () => new Promise(() => undefined)

export async function failsElsewhere() {
  setTimeout(() => {
    throw new Error('nobody catches this')
  }, 1)
  await sleep(10_000)
}
