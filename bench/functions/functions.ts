// The two functions that are called, whoever serves them: their inputs, and whether an answer is right.
import { randomFillSync } from 'node:crypto'
import { join } from 'node:path'

import {
  generateOptions,
  optionAt,
  optionsPerPayload,
  packOptions,
  priceClosedForm,
  unpackPrices,
} from '../../examples/black-scholes/options.js'
import { root } from '../machine.js'

export type FunctionName = 'echo' | 'price'

/** For everything that runs JavaScript. */
export const javascriptModule = join(root, 'bench', 'functions', 'functions.mjs')

/** The native packages with the same functions. */
export const nativePackages: Readonly<Record<FunctionName, string>> = {
  echo: join(root, 'build', 'examples', 'hello.so'),
  price: join(root, 'build', 'examples', 'black-scholes.so'),
}

/** An input of at most so many bytes. */
export function makeInput(name: FunctionName, payloadBytes: number): Uint8Array {
  if (name === 'echo') return randomFillSync(new Uint8Array(payloadBytes))
  const count = optionsPerPayload(payloadBytes) & ~1
  return packOptions(generateOptions(count), 0, count)
}

/** Fast and wrong is not fast. */
export function verify(name: FunctionName, input: Uint8Array, output: Uint8Array): void {
  if (name === 'echo') {
    if (Buffer.compare(input, output) === 0) return
    throw new Error(`an echo of ${input.byteLength} bytes brought something else back`)
  }
  const count = optionsPerPayload(input.byteLength)
  const options = generateOptions(count)
  const prices = unpackPrices([output.subarray(0, 8 * count)])
  for (let i = 0; i < count; ++i) {
    const expected = priceClosedForm(optionAt(options, i))
    // Written so that NaN fails it.
    if (!(Math.abs(prices[i]! - expected) <= 1e-9 * options.spot[i]!)) {
      throw new Error(`option ${i} was priced at ${prices[i]}, it is worth ${expected}`)
    }
  }
}
