// The functions that every driver which runs JavaScript serves, unchanged: a node package of rfaas,
// and a module that the peers import.

/** The simplest function: all that is measured is the call. */
export function echo(input) {
  return input
}

/** A real one: prices options as examples/black-scholes/black_scholes.cc does, from the same bytes. */
export function price(input) {
  // A typed array of doubles lies at a multiple of eight; what a network brought may not.
  const bytes = input.byteOffset % 8 === 0 ? input : new Uint8Array(input)
  const count = Number(new BigUint64Array(bytes.buffer, bytes.byteOffset, 1)[0])
  const column = (index) =>
    new Float64Array(bytes.buffer, bytes.byteOffset + 8 + 8 * index * count, count)
  const [spot, strike, rate, volatility, time, type] = [0, 1, 2, 3, 4, 5].map(column)
  const prices = new Float64Array(count)
  for (let i = 0; i < count; ++i) {
    const deviation = volatility[i] * Math.sqrt(time[i])
    const drift = (rate[i] + 0.5 * volatility[i] * volatility[i]) * time[i]
    const d1 = (Math.log(spot[i] / strike[i]) + drift) / deviation
    const discounted = strike[i] * Math.exp(-rate[i] * time[i])
    prices[i] =
      type[i] * (spot[i] * cdf(type[i] * d1) - discounted * cdf(type[i] * (d1 - deviation)))
  }
  return new Uint8Array(prices.buffer)
}

// The normal distribution function of Hart (1968, algorithm 5666), to about 1e-15.
function cdf(x) {
  const z = Math.abs(x)
  if (z > 37) return x > 0 ? 1 : 0
  const density = Math.exp((-z * z) / 2)
  const tail =
    z < 10 / Math.SQRT2
      ? (density *
          ((((((3.52624965998911e-2 * z + 0.700383064443688) * z + 6.37396220353165) * z +
            33.912866078383) *
            z +
            112.079291497871) *
            z +
            221.213596169931) *
            z +
            220.206867912376)) /
        (((((((8.83883476483184e-2 * z + 1.75566716318264) * z + 16.064177579207) * z +
          86.7807322029461) *
          z +
          296.564248779674) *
          z +
          637.333633378831) *
          z +
          793.826512519948) *
          z +
          440.413735824752)
      : density / ((z + 1 / (z + 2 / (z + 3 / (z + 4 / (z + 0.65))))) * Math.sqrt(2 * Math.PI))
  return x > 0 ? 1 - tail : tail
}
