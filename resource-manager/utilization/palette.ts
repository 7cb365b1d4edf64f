// The colours of the reports about clusters.
import type { Look } from '../../lib/plots/chart.js'
import type { Palette } from '../../lib/plots/style.js'

const series: Palette['series'] = {
  blue: { light: '#0b57d0', dark: '#7db1ff' },
  orange: { light: '#a65d00', dark: '#f2a54a' },
  green: { light: '#1a7f37', dark: '#5fd07f' },
  purple: { light: '#5a4bc8', dark: '#b0a5ff' },
  red: { light: '#c62828', dark: '#ff8078' },
  teal: { light: '#00798c', dark: '#3fc9dc' },
  pink: { light: '#a0307a', dark: '#f08cc8' },
  grey: { light: '#555555', dark: '#bbbbbb' },
}
const names = Object.keys(series)

export const palette: Palette = { series, parts: [], dashed: [], link: series['blue']! }

/** The n-th one; there are eight, over again. */
export function look(n: number): Look {
  return { colour: names[n % names.length]!, shape: n }
}
