// Rows with a value each. On a linear axis they are bars, of one part or of several behind one
// another; on a logarithmic one, which has no zero for a bar to begin at, they are points.
import { classOf, line, marker, svg, text, width, type Look } from './chart.js'
import { element, escape } from './markup.js'
import { scaleOf, type Axis } from './scale.js'

export interface Bar {
  label: string
  /** Whose colour, when the bar has one part. */
  look: Look
  parts: readonly { name: string; value: number }[]
  /** Behind the end of the bar. */
  note: string
}

export interface BarChart {
  id: string
  title: string
  description: string
  x: Axis
  bars: readonly Bar[]
  /** Of the parts, in the order of their colours; with one part there is no legend. */
  parts?: readonly string[]
}

const left = 210
const right = 700
const rowHeight = 34
const barHeight = 20

export function barChart({ id, title, description, x, bars, parts = [] }: BarChart): string {
  const top = parts.length > 1 ? 44 : 12
  const bottom = top + bars.length * rowHeight
  const totals = bars.map((bar) => bar.parts.reduce((sum, { value }) => sum + value, 0))
  const xs = scaleOf(x, totals, left, right)
  const grid = xs.ticks.flatMap(({ at, label }) => [
    line(at, top, at, bottom, 'grid'),
    text(at, bottom + 18, label, { class: 'tick', 'text-anchor': 'middle' }),
  ])
  const rows = bars.map((bar, row) => {
    const y = top + row * rowHeight + (rowHeight - barHeight) / 2
    const middle = y + barHeight / 2 + 4
    let from = 0
    if (x.kind !== 'linear') {
      const [at, centre] = [xs.at(totals[row]!), y + barHeight / 2]
      return [
        text(left - 10, middle, bar.label, { class: 'label', 'text-anchor': 'end' }),
        line(left, centre, right, centre, 'grid'),
        element('g', { class: classOf(bar.look) }, marker(bar.look, at, centre, 5)),
        text(at + 12, middle, bar.note, { class: 'label halo' }),
      ].join('')
    }
    const drawn = bar.parts.map(({ name, value }) => {
      const begin = from === 0 ? left : xs.at(from)
      from += value
      const end = Math.max(begin + 0.5, xs.at(from))
      const colour = parts.length > 1 ? `p-${parts.indexOf(name)}` : classOf(bar.look)
      return element(
        'g',
        { class: colour },
        element('title', {}, escape(`${bar.label}, ${name}: ${x.format(value)}`)),
        element('rect', { x: begin, y, width: end - begin, height: barHeight, class: 'fill' }),
      )
    })
    return [
      text(left - 10, middle, bar.label, { class: 'label', 'text-anchor': 'end' }),
      ...drawn,
      text(xs.at(totals[row]!) + 8, middle, bar.note, { class: 'label' }),
    ].join('')
  })
  let at = left
  const legend =
    parts.length < 2
      ? []
      : parts.map((name, index) => {
          const drawn = element(
            'g',
            { class: `p-${index}` },
            element('rect', { x: at, y: 8, width: 14, height: 14, class: 'fill' }),
            text(at + 20, 20, name, { class: 'label' }),
          )
          at += 44 + 7.5 * name.length
          return drawn
        })
  return svg(
    ...([id, title, description] as const),
    { width, height: bottom + 52 },
    ...legend,
    ...grid,
    line(left, top, left, bottom, 'axis'),
    ...rows,
    text((left + right) / 2, bottom + 44, x.title, { class: 'name', 'text-anchor': 'middle' }),
  )
}
