// Elements from text: what the cluster calls itself never becomes markup.

/** Those of the page itself, which are always there. */
export function byId(id: string): HTMLElement {
  return document.getElementById(id)!
}

type Child = Node | string

export function element(
  name: string,
  attributes: Readonly<Record<string, string>> = {},
  ...children: readonly Child[]
): HTMLElement {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

export function svgElement(
  name: string,
  attributes: Readonly<Record<string, string | number>> = {},
  ...children: readonly Child[]
): SVGElement {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value))
  made.append(...children)
  return made
}

export interface Column<Row> {
  title: string
  value: (row: Row) => string
  /** At the right edge. */
  number?: boolean
}

/** The first column names its row. `idOf`: for links to it. */
export function fillTable<Row>(
  table: HTMLElement,
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  none: string,
  idOf?: (row: Row) => string,
): void {
  const side = ({ number = false }: Column<Row>): Record<string, string> =>
    number ? { class: 'number' } : {}
  const head = columns.map((column) =>
    element('th', { scope: 'col', ...side(column) }, column.title),
  )
  const body = rows.map((row) =>
    element(
      'tr',
      idOf === undefined ? {} : { id: idOf(row), tabindex: '-1' },
      ...columns.map((column, index) =>
        index === 0
          ? element('th', { scope: 'row' }, column.value(row))
          : element('td', side(column), column.value(row)),
      ),
    ),
  )
  const span = String(columns.length)
  const empty = element('tr', {}, element('td', { class: 'empty', colspan: span }, none))
  table.replaceChildren(
    element('thead', {}, element('tr', {}, ...head)),
    element('tbody', {}, ...(rows.length === 0 ? [empty] : body)),
  )
}

export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let unit = 0
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024
    unit += 1
  }
  return `${bytes.toLocaleString('en-US', { maximumFractionDigits: 1 })} ${units[unit]}`
}

/** Two units at most: `3 h 20 min`. */
export function formatDuration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000))
  const [d, h, m, s] = [
    Math.floor(seconds / 86_400),
    Math.floor(seconds / 3600) % 24,
    Math.floor(seconds / 60) % 60,
    seconds % 60,
  ]
  const parts = [`${d} d`, `${h} h`, `${m} min`, `${s} s`]
  const first = [d, h, m, s].findIndex((value) => value > 0)
  return first < 0 ? '0 s' : parts.slice(first, first + 2).join(' ')
}

export function formatNumber(value: number, digits = 0): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: digits })
}
