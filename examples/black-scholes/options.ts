// The demo's option set: generated reproducibly, packed for black_scholes.cc, and priced a second
// and a third time by methods that share nothing with it but the model.

/** One column per parameter; `type` is 1 for a call and -1 for a put. */
export interface OptionSet {
  readonly count: number
  readonly spot: Float64Array
  readonly strike: Float64Array
  readonly rate: Float64Array
  readonly volatility: Float64Array
  readonly time: Float64Array
  readonly type: Float64Array
}

export interface Option {
  readonly spot: number
  readonly strike: number
  readonly rate: number
  readonly volatility: number
  /** Years to expiry. */
  readonly time: number
  readonly type: 1 | -1
}

const columns = ['spot', 'strike', 'rate', 'volatility', 'time', 'type'] as const
const headerBytes = 8
const optionBytes = columns.length * Float64Array.BYTES_PER_ELEMENT

/**
 * Equity options as a chain of listed ones would show them: spots of 10 to 500, strikes from 30 %
 * below to 30 % above the spot in steps of 0.5, rates of 0 to 6 %, volatilities of 8 to 80 %,
 * expiries of 1 to 730 days. Every call is followed by the put of the same terms, so that put-call
 * parity can be checked over the whole set. The same seed gives the same set everywhere: only
 * IEEE arithmetic, no Math.exp or Math.log.
 */
export function generateOptions(count: number, seed = 1): OptionSet {
  if (!Number.isSafeInteger(count) || count < 2 || count % 2 !== 0) {
    throw new RangeError(`count is ${count}; it must be an even integer of at least 2`)
  }
  const random = uniform(seed)
  const set = emptySet(count)
  for (let call = 0; call < count; call += 2) {
    const spot = Math.round(100 * (10 + 490 * random() * random())) / 100
    const strike = Math.max(0.5, Math.round(2 * spot * (0.7 + 0.6 * random())) / 2)
    const rate = 0.06 * random()
    const volatility = 0.08 + 0.72 * random()
    const time = (1 + Math.floor(730 * random())) / 365
    for (const [index, type] of [
      [call, 1],
      [call + 1, -1],
    ] as const) {
      set.spot[index] = spot
      set.strike[index] = strike
      set.rate[index] = rate
      set.volatility[index] = volatility
      set.time[index] = time
      set.type[index] = type
    }
  }
  return set
}

/** How many options fit into a payload of so many bytes. */
export function optionsPerPayload(payloadBytes: number): number {
  return Math.floor((payloadBytes - headerBytes) / optionBytes)
}

/** Options `from` to `to` (exclusive) in the layout that black_scholes.cc documents. */
export function packOptions(set: OptionSet, from: number, to: number): Uint8Array {
  const count = to - from
  const packed = new Float64Array((headerBytes + count * optionBytes) / 8)
  new BigUint64Array(packed.buffer)[0] = BigInt(count)
  columns.forEach((column, index) => {
    packed.set(set[column].subarray(from, to), 1 + index * count)
  })
  return new Uint8Array(packed.buffer)
}

/** The prices in the answers to consecutive calls, as one array. */
export function unpackPrices(answers: readonly Uint8Array[]): Float64Array {
  const bytes = Buffer.concat(answers)
  // Copied: an answer may lie at any address, a Float64Array only at a multiple of 8.
  return new Float64Array(new Uint8Array(bytes).buffer)
}

export function optionAt(set: OptionSet, index: number): Option {
  if (!(index >= 0 && index < set.count)) {
    throw new RangeError(`index is ${index}; the set has ${set.count} options`)
  }
  return {
    spot: set.spot[index]!,
    strike: set.strike[index]!,
    rate: set.rate[index]!,
    volatility: set.volatility[index]!,
    time: set.time[index]!,
    type: set.type[index] === 1 ? 1 : -1,
  }
}

/**
 * The closed formula with the normal distribution function of Hart (1968, algorithm 5666): a
 * rational approximation, where black_scholes.cc uses the C library's erfc.
 */
export function priceClosedForm({ spot, strike, rate, volatility, time, type }: Option): number {
  const deviation = volatility * Math.sqrt(time)
  const forward = spot * Math.exp(rate * time)
  const d1 = Math.log(forward / strike) / deviation + deviation / 2
  const d2 = d1 - deviation
  return (
    type * Math.exp(-rate * time) * (forward * hartCdf(type * d1) - strike * hartCdf(type * d2))
  )
}

/**
 * The discounted expectation of the payoff, integrated numerically over the normal density of the
 * logarithmic return: no closed formula and no distribution function at all.
 */
export function priceByIntegration(option: Option, intervals = 512): number {
  const { spot, strike, rate, volatility, time, type } = option
  const deviation = volatility * Math.sqrt(time)
  const drift = rate * time - (deviation * deviation) / 2
  // The payoff is positive beyond the return at which the option is at the money, and smooth there.
  const atTheMoney = (Math.log(strike / spot) - drift) / deviation
  // A density of exp(-x²/2) is below 1e-31 beyond 12; a call's payoff shifts it by the deviation.
  const reach = 12 + deviation
  const from = type === 1 ? Math.max(atTheMoney, -reach) : -reach
  const to = type === 1 ? reach : Math.min(atTheMoney, reach)
  if (from >= to) return 0
  const width = (to - from) / intervals
  let sum = 0
  for (let i = 0; i <= intervals; i += 1) {
    const x = from + i * width
    const payoff = type * (spot * Math.exp(drift + deviation * x) - strike)
    // Simpson's rule: weights 1 4 2 4 … 4 1.
    const weight = i === 0 || i === intervals ? 1 : i % 2 === 1 ? 4 : 2
    sum += weight * payoff * Math.exp((-x * x) / 2)
  }
  return (Math.exp(-rate * time) * sum * width) / (3 * Math.sqrt(2 * Math.PI))
}

export interface PriceCheck {
  readonly options: number
  /** Sum of all prices, and the same from the closed formula in TypeScript. */
  readonly total: number
  readonly expectedTotal: number
  /** Largest differences, as fractions of the spot: over all options, pairs, and integrated ones. */
  readonly worstClosedForm: number
  readonly worstParity: number
  readonly worstIntegration: number
  readonly integrated: number
  /** Empty if the prices are right. */
  readonly problems: readonly string[]
}

/** Prices all options a second time, checks put-call parity, and integrates every `stride`-th. */
export function checkPrices(set: OptionSet, prices: Float64Array, stride = 101): PriceCheck {
  const problems: string[] = []
  if (prices.length !== set.count) {
    problems.push(`${prices.length} prices for ${set.count} options`)
  }
  const report = (index: number, method: string, expected: number) => {
    const { spot, strike, rate, volatility, time, type } = optionAt(set, index)
    const terms = `spot ${spot}, strike ${strike}, rate ${rate}, volatility ${volatility}`
    const kind = type === 1 ? 'call' : 'put'
    const price = prices[index]!
    problems.push(
      `option ${index} (${kind}, ${terms}, time ${time}): ${price}, but ${method} gives ${expected}`,
    )
  }
  let [total, expectedTotal, integrated] = [0, 0, 0]
  let [worstClosedForm, worstParity, worstIntegration] = [0, 0, 0]
  const count = Math.min(prices.length, set.count)
  for (let index = 0; index < count; index += 1) {
    const option = optionAt(set, index)
    const price = prices[index]!
    const expected = priceClosedForm(option)
    total += price
    expectedTotal += expected

    // Comparisons are written so that NaN fails them.
    const difference = Math.abs(price - expected) / option.spot
    worstClosedForm = Math.max(worstClosedForm, difference)
    if (!(difference <= 1e-12)) report(index, "Hart's approximation", expected)

    if (option.type === -1) {
      const forward = option.spot - option.strike * Math.exp(-option.rate * option.time)
      const parity = Math.abs(prices[index - 1]! - price - forward) / option.spot
      worstParity = Math.max(worstParity, parity)
      if (!(parity <= 1e-12)) report(index, 'put-call parity', prices[index - 1]! - forward)
    }
    if (index % stride === 0) {
      const integral = priceByIntegration(option)
      const distance = Math.abs(price - integral) / option.spot
      integrated += 1
      worstIntegration = Math.max(worstIntegration, distance)
      if (!(distance <= 1e-8)) report(index, 'numerical integration', integral)
    }
    if (problems.length >= 5) break
  }
  return {
    options: count,
    total,
    expectedTotal,
    worstClosedForm,
    worstParity,
    worstIntegration,
    integrated,
    problems,
  }
}

function emptySet(count: number): OptionSet {
  const column = () => new Float64Array(count)
  return {
    count,
    spot: column(),
    strike: column(),
    rate: column(),
    volatility: column(),
    time: column(),
    type: column(),
  }
}

/** Numbers in [0, 1): a 32-bit Weyl sequence through the finalizer of MurmurHash3. */
function uniform(seed: number): () => number {
  let state = Math.imul(seed, 0x9e3779b9) >>> 0
  return () => {
    state = (state + 0x9e3779b9) >>> 0
    let hash = state
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
    return ((hash ^ (hash >>> 16)) >>> 0) / 2 ** 32
  }
}

const hartNumerator = [
  3.52624965998911e-2, 0.700383064443688, 6.37396220353165, 33.912866078383, 112.079291497871,
  221.213596169931, 220.206867912376,
]
const hartDenominator = [
  8.83883476483184e-2, 1.75566716318264, 16.064177579207, 86.7807322029461, 296.564248779674,
  637.333633378831, 793.826512519948, 440.413735824752,
]

/** The standard normal distribution function to about 1e-15. */
export function hartCdf(x: number): number {
  const distance = Math.abs(x)
  if (distance > 37) return x > 0 ? 1 : 0
  const density = Math.exp((-distance * distance) / 2)
  let tail: number
  if (distance < 10 / Math.SQRT2) {
    tail = (density * polynomial(hartNumerator, distance)) / polynomial(hartDenominator, distance)
  } else {
    // A continued fraction takes over where the rational approximation ends.
    const fraction =
      distance + 1 / (distance + 2 / (distance + 3 / (distance + 4 / (distance + 0.65))))
    tail = density / (fraction * Math.sqrt(2 * Math.PI))
  }
  return x > 0 ? 1 - tail : tail
}

function polynomial(coefficients: readonly number[], x: number): number {
  return coefficients.reduce((sum, coefficient) => sum * x + coefficient, 0)
}
