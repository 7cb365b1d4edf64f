// From values to coordinates, and where the ticks are.

export interface Axis {
  title: string
  kind: 'log2' | 'log10' | 'linear'
  format: (value: number) => string
  /** Default: what the values need. */
  min?: number
  max?: number
  /** Default: what the kind of axis suggests. */
  ticks?: readonly number[]
}

export interface Scale {
  readonly ticks: readonly { at: number; label: string }[]
  at(value: number): number
}

const mostTicks = 9

/** Maps the values to `from` … `to`, which may run backwards. */
export function scaleOf(axis: Axis, values: readonly number[], from: number, to: number): Scale {
  const { kind } = axis
  const project = (value: number): number =>
    kind === 'linear' ? value : kind === 'log2' ? Math.log2(value) : Math.log10(value)
  const usable = kind === 'linear' ? values : values.filter((value) => value > 0)
  let low = axis.min ?? (kind === 'linear' ? 0 : Math.min(...usable))
  let high = axis.max ?? Math.max(...usable)
  // Decades are halved at least, so that the curves fill the plot.
  if (kind === 'log10') {
    if (axis.min === undefined) low = niceBelow(low)
    if (axis.max === undefined) high = -niceBelow(-high, true)
  }
  if (kind === 'linear' && axis.max === undefined) high *= 1.05
  const [first, last] = [project(low), project(high)]
  const span = last - first || 1
  const at = (value: number): number => from + ((project(value) - first) / span) * (to - from)
  const ticks = (axis.ticks ?? defaultTicks(kind, low, high)).filter(
    (tick) => tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9),
  )
  return { at, ticks: ticks.map((tick) => ({ at: at(tick), label: axis.format(tick) })) }
}

/** 1, 2 or 5 times a power of ten, not above; with `up`, for -value, not below. */
function niceBelow(value: number, up = false): number {
  const size = Math.abs(value)
  const decade = 10 ** Math.floor(Math.log10(size))
  const steps = up ? [1, 2, 5, 10] : [5, 2, 1]
  const step = steps.find((one) => (up ? one * decade >= size : one * decade <= size)) ?? 1
  return up ? -step * decade : step * decade
}

function defaultTicks(kind: Axis['kind'], low: number, high: number): number[] {
  if (kind === 'linear') {
    const rough = (high - low) / 5
    const decade = 10 ** Math.floor(Math.log10(rough))
    const step = [1, 2, 5, 10].map((one) => one * decade).find((one) => one >= rough)!
    return range(Math.ceil(low / step), Math.floor(high / step)).map((i) => i * step)
  }
  const base = kind === 'log2' ? 2 : 10
  const log = (value: number): number => Math.log(value) / Math.log(base)
  const [first, last] = [Math.ceil(log(low) - 1e-9), Math.floor(log(high) + 1e-9)]
  const every = Math.ceil((last - first + 1) / mostTicks)
  return range(first, last)
    .filter((power) => (power - first) % every === 0)
    .map((power) => base ** power)
}

function range(first: number, last: number): number[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i)
}
