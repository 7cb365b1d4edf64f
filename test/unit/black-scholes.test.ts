import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  checkPrices,
  generateOptions,
  hartCdf,
  type Option,
  optionAt,
  type OptionSet,
  optionsPerPayload,
  packOptions,
  priceByIntegration,
  priceClosedForm,
  unpackPrices,
} from '../../examples/black-scholes/options.js'
import { buildNativeCaller, type NativeCaller } from './native-package.js'

// Published values, to the digits they were published with.
const published: [source: string, option: Option, price: number, digits: number][] = [
  ['Hull, Options, Futures and Other Derivatives, 9th edition, example 15.6 (call)', option(42, 40, 0.1, 0.2, 0.5, 1), 4.76, 2], // prettier-ignore
  ['Hull, Options, Futures and Other Derivatives, 9th edition, example 15.6 (put)', option(42, 40, 0.1, 0.2, 0.5, -1), 0.81, 2], // prettier-ignore
  ['Haug, The Complete Guide to Option Pricing Formulas, 1.1.1 (call)', option(60, 65, 0.08, 0.3, 0.25, 1), 2.1334, 4], // prettier-ignore
]

function option(
  spot: number,
  strike: number,
  rate: number,
  volatility: number,
  time: number,
  type: 1 | -1,
): Option {
  return { spot, strike, rate, volatility, time, type }
}

function setOf(options: Option[]): OptionSet {
  const column = (name: keyof Option) => Float64Array.from(options, (each) => each[name])
  return {
    count: options.length,
    spot: column('spot'),
    strike: column('strike'),
    rate: column('rate'),
    volatility: column('volatility'),
    time: column('time'),
    type: column('type'),
  }
}

describe('the reference prices', () => {
  it.each(published)('agree with %s', (_source, terms, price, digits) => {
    expect(priceClosedForm(terms)).toBeCloseTo(price, digits)
    expect(priceByIntegration(terms)).toBeCloseTo(price, digits)
  })

  it('rest on a normal distribution function with the tabulated values', () => {
    expect(hartCdf(0)).toBeCloseTo(0.5, 14)
    expect(hartCdf(1)).toBeCloseTo(0.841344746068543, 14)
    expect(hartCdf(-1.959963984540054)).toBeCloseTo(0.025, 14)
    expect(hartCdf(-8) / 6.220960574271785e-16).toBeCloseTo(1, 7)
    expect([hartCdf(-40), hartCdf(40)]).toEqual([0, 1])
  })
})

describe('the option set', () => {
  it('is the same for the same seed and another for another', () => {
    expect(generateOptions(100, 7)).toEqual(generateOptions(100, 7))
    expect(generateOptions(100, 7)).not.toEqual(generateOptions(100, 8))
    expect(optionAt(generateOptions(2, 1), 1)).toEqual({
      ...optionAt(generateOptions(1000, 1), 0),
      type: -1,
    })
  })

  it('stays within the documented parameters', () => {
    const set = generateOptions(20_000)
    const range = (column: Float64Array) => [Math.min(...column), Math.max(...column)]
    const within = ([low, high]: number[], from: number, to: number) => low! >= from && high! <= to
    expect(within(range(set.spot), 10, 500)).toBe(true)
    expect(within(range(set.rate), 0, 0.06)).toBe(true)
    expect(within(range(set.volatility), 0.08, 0.8)).toBe(true)
    expect(within(range(set.time), 1 / 365, 2)).toBe(true)
    expect(within(range(set.strike.map((strike, i) => strike / set.spot[i]!)), 0.67, 1.33)).toBe(true) // prettier-ignore
    expect(() => generateOptions(3)).toThrow('count is 3; it must be an even integer')
  })
})

describe('the native package', () => {
  let native: NativeCaller
  beforeAll(() => {
    native = buildNativeCaller()
  })
  afterAll(() => native.close())

  const price = (set: OptionSet, from = 0, to = set.count) =>
    native.call('black-scholes', 'price', packOptions(set, from, to), 8 * (to - from))

  it.each(published)('agrees with %s', (_source, terms, expected, digits) => {
    expect(unpackPrices([price(setOf([terms]))])[0]).toBeCloseTo(expected, digits)
  })

  it('prices a set in several payloads of 1 MiB as the independent computations do', () => {
    const set = generateOptions(50_000)
    const step = optionsPerPayload(1024 * 1024)
    const answers: Uint8Array[] = []
    for (let from = 0; from < set.count; from += step) {
      answers.push(price(set, from, Math.min(from + step, set.count)))
    }
    expect(answers.length).toBe(3)
    const check = checkPrices(set, unpackPrices(answers))
    expect(check.problems).toEqual([])
    expect(check.options).toBe(50_000)
    expect(check.integrated).toBeGreaterThan(400)
    expect(check.total / check.expectedTotal).toBeCloseTo(1, 13)
  })

  it('keeps its accuracy where a price is a tiny tail', () => {
    const far = option(100, 200, 0.02, 0.2, 0.25, 1)
    const tail = unpackPrices([price(setOf([far]))])[0]!
    expect(tail).toBeLessThan(1e-9)
    expect(tail / priceByIntegration(far, 4096)).toBeCloseTo(1, 6)
  })

  it('answers an empty set with no prices', () => {
    expect(price(setOf([])).length).toBe(0)
  })

  it('names the option, the parameter and the value that it refuses', () => {
    const terms = option(42, 40, 0.1, 0.2, 0.5, 1)
    const refuse = (wrong: Partial<Record<keyof Option, number>>) => () =>
      price(setOf([terms, { ...terms, ...wrong } as Option]))
    expect(refuse({ volatility: -0.2 })).toThrow('option 1: volatility is -0.2; it must be finite')
    expect(refuse({ spot: NaN })).toThrow('option 1: spot is')
    expect(refuse({ rate: Infinity })).toThrow('option 1: rate is inf; it must be finite')
    expect(refuse({ type: 0 })).toThrow('option 1: type is 0; it must be 1 (call) or -1 (put)')
  })

  it('refuses a count that does not fit the length of the input', () => {
    const call = (input: Uint8Array) => () => native.call('black-scholes', 'price', input, 4096)
    const packed = packOptions(generateOptions(2), 0, 2)
    expect(call(packed.subarray(0, 4))).toThrow('input has 4 bytes and says 0 options')
    expect(call(packed.subarray(0, 100))).toThrow('input has 100 bytes and says 2 options')
    // 48 times this count is 96 modulo 2^64, just what follows the header.
    new BigUint64Array(packed.buffer)[0] = 2n + 2n ** 60n
    expect(call(packed)).toThrow('options; it must have 8 + 48 x options')
  })

  it('refuses an output that is too small for the prices', () => {
    expect(() =>
      native.call('black-scholes', 'price', packOptions(generateOptions(2), 0, 2), 15),
    ).toThrow('-2')
  })
})

describe('the check of prices', () => {
  const set = generateOptions(2000)
  const right = Float64Array.from({ length: set.count }, (_, i) =>
    priceClosedForm(optionAt(set, i)),
  )

  it('accepts right prices', () => {
    expect(checkPrices(set, right).problems).toEqual([])
  })

  it.each([
    ['one price is off by a millionth', (prices: Float64Array) => (prices[777]! *= 1 + 1e-6)],
    ['one price is not a number', (prices: Float64Array) => (prices[1999] = NaN)],
    ['two answers are swapped', (prices: Float64Array) => prices.copyWithin(0, 1000, 1500)],
  ])('refuses them when %s', (_case, spoil) => {
    const wrong = right.slice()
    spoil(wrong)
    expect(checkPrices(set, wrong).problems.length).toBeGreaterThan(0)
  })

  it('refuses a set that is not complete', () => {
    expect(checkPrices(set, right.subarray(0, 1998)).problems).toEqual([
      '1998 prices for 2000 options',
    ])
  })
})
