// A figure: a plot, what it shows in a sentence, and the same numbers as a table.
import { element, escape } from './markup.js'

export interface Table {
  columns: readonly string[]
  rows: readonly (readonly string[])[]
}

export interface Figure {
  id: string
  title: string
  /** What one sees, and how it was measured. */
  caption: string
  /** Without: the table is enough. */
  plot?: string
  table: Table
}

export function renderFigure({ id, title, caption, plot, table }: Figure): string {
  return element(
    'section',
    { id },
    element('h2', {}, escape(title)),
    element(
      'figure',
      {},
      ...(plot === undefined ? [] : [element('div', { class: 'scroll' }, plot)]),
      element('figcaption', {}, escape(caption)),
    ),
    element('div', { class: 'scroll' }, renderTable(table, title)),
  )
}

function renderTable({ columns, rows }: Table, label: string): string {
  const head = columns.map((title) => element('th', { scope: 'col' }, escape(title)))
  const body = rows.map(([first = '', ...cells]) =>
    element(
      'tr',
      {},
      element('th', { scope: 'row' }, escape(first)),
      ...cells.map((cell) => element('td', {}, escape(cell))),
    ),
  )
  return element(
    'table',
    { 'aria-label': label },
    element('thead', {}, element('tr', {}, ...head)),
    element('tbody', {}, ...body),
  )
}
