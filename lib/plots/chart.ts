// What all plots have: a frame with axes, names for who listens instead of looking, and marks.
import { element, escape } from './markup.js'
import type { Axis, Scale } from './scale.js'

export const width = 820
export const height = 440
export const plot = { left: 78, right: 628, top: 16, bottom: 382 }

/** How a curve or a bar is told from the others: by a colour of the palette (style.ts) and, for who cannot
 * tell the colours apart, by a shape. */
export interface Look {
  colour: string
  /** Index into the shapes, over again. */
  shape: number
}

export function classOf({ colour }: Look): string {
  return `s-${colour}`
}

export function svg(
  id: string,
  title: string,
  description: string,
  size: { width: number; height: number },
  ...children: readonly string[]
): string {
  return element(
    'svg',
    {
      ...{ viewBox: `0 0 ${size.width} ${size.height}`, role: 'img' },
      'aria-labelledby': `${id}-title ${id}-desc`,
    },
    element('title', { id: `${id}-title` }, escape(title)),
    element('desc', { id: `${id}-desc` }, escape(description)),
    ...children,
  )
}

export function text(
  x: number,
  y: number,
  content: string,
  attributes: Readonly<Record<string, string | number>> = {},
): string {
  return element('text', { x, y, ...attributes }, escape(content))
}

export function line(x1: number, y1: number, x2: number, y2: number, name: string): string {
  return element('line', { x1, y1, x2, y2, class: name })
}

/** Grid, ticks and titles. */
export function frame(x: Axis, y: Axis, xs: Scale, ys: Scale): string {
  const { left, right, top, bottom } = plot
  const middle = (left + right) / 2
  return [
    ...ys.ticks.flatMap(({ at, label }) => [
      line(left, at, right, at, 'grid'),
      text(left - 8, at + 4, label, { class: 'tick', 'text-anchor': 'end' }),
    ]),
    ...xs.ticks.flatMap(({ at, label }) => [
      line(at, bottom, at, bottom + 5, 'axis'),
      text(at, bottom + 20, label, { class: 'tick', 'text-anchor': 'middle' }),
    ]),
    line(left, bottom, right, bottom, 'axis'),
    text(middle, bottom + 44, x.title, { class: 'name', 'text-anchor': 'middle' }),
    element(
      'text',
      {
        ...{ x: 0, y: 0, class: 'name', 'text-anchor': 'middle' },
        transform: `translate(16 ${(top + bottom) / 2}) rotate(-90)`,
      },
      escape(y.title),
    ),
  ].join('')
}

const shapes = ['circle', 'square', 'triangle', 'diamond'] as const

export function marker({ shape }: Look, x: number, y: number, r = 4): string {
  switch (shapes[shape % shapes.length]!) {
    case 'circle':
      return element('circle', { cx: x, cy: y, r, class: 'mark' })
    case 'square':
      return element('path', {
        d: `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
        class: 'mark',
      })
    case 'triangle':
      return element('path', {
        d: `M${x} ${y - r - 1}L${x + r + 1} ${y + r}H${x - r - 1}z`,
        class: 'mark',
      })
    case 'diamond':
      return element('path', {
        d: `M${x} ${y - r - 1}L${x + r + 1} ${y}L${x} ${y + r + 1}L${x - r - 1} ${y}z`,
        class: 'mark',
      })
  }
}
