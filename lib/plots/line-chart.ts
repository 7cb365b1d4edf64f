// Curves with their names at their ends, where the eye looks for them.
import { classOf, frame, height, line, marker, plot, svg, text, width, type Look } from './chart.js'
import { element, escape } from './markup.js'
import { scaleOf, type Axis } from './scale.js'

export interface Curve {
  look: Look
  label: string
  points: readonly CurvePoint[]
}

export interface CurvePoint {
  x: number
  y: number
  /** Over the rounds; drawn as a bar when it can be seen. */
  low?: number
  high?: number
}

export interface LineChart {
  id: string
  title: string
  description: string
  x: Axis
  y: Axis
  curves: readonly Curve[]
  /** Which points are marked; default: all. Curves of many points have one mark, that tells them
   * apart, and no line to their name where they all end in the same place. */
  mark?: (point: CurvePoint) => boolean
  lead?: boolean
}

const labelHeight = 17
const leastBar = 5

export function lineChart(chart: LineChart): string {
  const { id, title, description, x, y, curves } = chart
  const points = curves.flatMap((curve) => curve.points)
  const spread = points.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y])
  const values = points.map((point) => point.x)
  const xs = scaleOf(x, values, plot.left, plot.right - 10)
  const ys = scaleOf(y, spread, plot.bottom, plot.top)
  const ends = curves.map(({ points }) => ys.at(points.at(-1)!.y))
  const places = spreadOut(ends, plot.top + 4, plot.bottom - 4)
  const drawn = curves.map((curve, index) => {
    const at = curve.points.map((point) => ({
      ...{ x: xs.at(point.x), y: ys.at(point.y), point },
    }))
    const path = at.map((p, i) => `${i === 0 ? 'M' : 'L'}${p.x.toFixed(1)} ${p.y.toFixed(1)}`)
    const bars = at.flatMap(({ x: px, point }) => {
      if (point.low === undefined || point.high === undefined) return []
      const [low, high] = [ys.at(point.low), ys.at(point.high)]
      return low - high < leastBar ? [] : [line(px, low, px, high, 'bar')]
    })
    const marks = at
      .filter(({ point }) => chart.mark?.(point) ?? true)
      .map(({ x: px, y: py, point }) =>
        element(
          'g',
          {},
          element(
            'title',
            {},
            escape(`${curve.label}: ${x.format(point.x)}, ${y.format(point.y)}`),
          ),
          marker(curve.look, px, py),
        ),
      )
    const end = at.at(-1)!
    const place = places[index]!
    const nameX = plot.right + 22
    return element(
      'g',
      { class: classOf(curve.look) },
      element('path', { d: path.join(''), class: 'curve' }),
      ...bars,
      ...marks,
      ...(chart.lead === false ? [] : [line(end.x + 6, end.y, nameX - 12, place, 'lead')]),
      marker(curve.look, nameX - 6, place),
      text(nameX + 4, place + 4, curve.label, { class: 'label' }),
    )
  })
  return svg(id, title, description, { width, height }, frame(x, y, xs, ys), ...drawn)
}

/** The places nearest to `wanted` at which names do not overlap. */
function spreadOut(wanted: readonly number[], top: number, bottom: number): number[] {
  const order = wanted.map((at, index) => ({ at, index })).sort((a, b) => a.at - b.at)
  for (let i = 0, free = top; i < order.length; ++i) {
    order[i]!.at = Math.max(order[i]!.at, free)
    free = order[i]!.at + labelHeight
  }
  for (let i = order.length - 1, free = bottom; i >= 0; --i) {
    order[i]!.at = Math.min(order[i]!.at, free)
    free = order[i]!.at - labelHeight
  }
  const places = new Array<number>(wanted.length)
  for (const { at, index } of order) places[index] = at
  return places
}
