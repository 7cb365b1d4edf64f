// Cores over time, stacked: the plot of the last hour.
import { element, formatNumber, svgElement } from './elements.js'
import { coreStates, type CoreCounts, type Sample } from './messages.js'

const high = 220
const left = 48
const bottom = 24
const top = 8

/** `wide`: in pixels, so that its text is as large as all other. What a screen reader says of it is in its description; all values are in the table beside it. */
export function plotSamples(samples: readonly Sample[], wide: number): Element {
  const first = samples[0]
  const last = samples.at(-1)
  if (first === undefined || last === undefined || samples.length < 2) {
    return element('p', { class: 'empty' }, 'The first minute is still being watched.')
  }
  const sum = (cores: CoreCounts): number =>
    coreStates.reduce((total, state) => total + cores[state], 0)
  const most = Math.max(1, ...samples.map(({ cores }) => sum(cores)))
  const span = last.atMs - first.atMs
  const x = (atMs: number): number => left + ((atMs - first.atMs) / span) * (wide - left)
  const y = (cores: number): number => top + (1 - cores / most) * (high - top - bottom)

  // A sample holds until the next.
  const stairs = (heights: readonly number[]): string[] =>
    samples.flatMap(({ atMs }, i) => {
      const height = y(heights[i] ?? 0)
      const before = i === 0 ? [] : [`${x(atMs)},${y(heights[i - 1] ?? 0)}`]
      return [...before, `${x(atMs)},${height}`]
    })
  let below = samples.map(() => 0)
  const areas = coreStates.map((state) => {
    const above = below.map((cores, i) => cores + (samples[i]?.cores[state] ?? 0))
    const outline = [...stairs(above), ...stairs(below).reverse()]
    below = above
    return svgElement('path', { class: state, d: `M${outline.join('L')}Z` })
  })
  const label = (at: number, text: string, anchor: string): SVGElement =>
    svgElement('text', { x: at, y: high - 6, 'text-anchor': anchor }, text)
  const grid = [0, most / 2, most].flatMap((cores) => [
    svgElement('line', { class: 'grid', x1: left, x2: wide, y1: y(cores), y2: y(cores) }),
    svgElement(
      'text',
      { x: left - 6, y: y(cores) + 4, 'text-anchor': 'end' },
      formatNumber(cores, 1),
    ),
  ])
  const now = coreStates.map((state) => `${formatNumber(last.cores[state])} ${state}`).join(', ')
  return svgElement(
    'svg',
    { viewBox: `0 0 ${wide} ${high}`, role: 'img', 'aria-labelledby': 'plot-title plot-text' },
    svgElement('title', { id: 'plot-title' }, 'Cores by state over time'),
    svgElement('desc', { id: 'plot-text' }, `Of at most ${most} cores. Now: ${now}.`),
    ...areas,
    ...grid,
    label(left, timeOf(first.atMs), 'start'),
    label(wide, timeOf(last.atMs), 'end'),
  )
}

export function timeOf(atMs: number): string {
  return new Date(atMs).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
}
