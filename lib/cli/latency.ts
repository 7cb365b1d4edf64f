// Summary of measured round trips.

export interface Latency {
  samples: number
  minMs: number
  p50Ms: number
  p99Ms: number
  maxMs: number
}

/** `durationsMs` is sorted in place. */
export function summarize(durationsMs: Float64Array): Latency {
  durationsMs.sort()
  // The nearest rank: a value that was really measured.
  const rank = (share: number): number =>
    durationsMs[Math.max(0, Math.ceil(share * durationsMs.length) - 1)] ?? Number.NaN
  return {
    samples: durationsMs.length,
    minMs: rank(0),
    p50Ms: rank(0.5),
    p99Ms: rank(0.99),
    maxMs: rank(1),
  }
}

/** Three digits with a unit that suits: `1.23 µs`. */
export function showTime(milliseconds: number): string {
  if (milliseconds < 1e-3) return `${Math.round(milliseconds * 1e6)} ns`
  if (milliseconds < 1) return `${digits(milliseconds * 1e3)} µs`
  if (milliseconds < 1000) return `${digits(milliseconds)} ms`
  return `${digits(milliseconds / 1000)} s`
}

function digits(value: number): string {
  return value >= 100 ? String(Math.round(value)) : value.toPrecision(3)
}
