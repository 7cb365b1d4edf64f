// The drivers' colours. Ours are blue to green, peers warm, floors grey and dashed.
import type { Look } from '../../lib/plots/chart.js'
import type { Palette } from '../../lib/plots/style.js'

const series: Palette['series'] = {
  invokeSync: { light: '#0b57d0', dark: '#7db1ff' },
  invoke: { light: '#00798c', dark: '#3fc9dc' },
  map: { light: '#8a2be2', dark: '#d0a0ff' },
  mapRecords: { light: '#b5179e', dark: '#f08cf0' },
  warm: { light: '#5a4bc8', dark: '#b0a5ff' },
  node: { light: '#1a7f37', dark: '#5fd07f' },
  nodeAwaited: { light: '#5d7a00', dark: '#b5d334' },
  nodeMap: { light: '#3f6b5c', dark: '#7fd1b3' },
  native: { light: '#0b57d0', dark: '#7db1ff' },
  piscina: { light: '#a65d00', dark: '#f2a54a' },
  grpc: { light: '#a0307a', dark: '#f08cc8' },
  fastify: { light: '#c62828', dark: '#ff8078' },
  functionsFramework: { light: '#7b4a2d', dark: '#d9a98a' },
  direct: { light: '#666666', dark: '#aaaaaa' },
  floor: { light: '#2b2b2b', dark: '#e6e6e6' },
  bareFloor: { light: '#808080', dark: '#9a9a9a' },
  eventfd: { light: '#6b6b6b', dark: '#b0b0b0' },
  memcpy: { light: '#6b6b6b', dark: '#b0b0b0' },
  other: { light: '#555555', dark: '#bbbbbb' },
}

const parts: Palette['parts'] = [
  { light: '#7b61c4', dark: '#b7a4f5' },
  { light: '#00798c', dark: '#3fc9dc' },
  { light: '#0b57d0', dark: '#7db1ff' },
  { light: '#4d8f2e', dark: '#8fd06a' },
  { light: '#c26a00', dark: '#f2a54a' },
]

const dashed = ['floor', 'bareFloor', 'eventfd', 'memcpy', 'other']

export const palette: Palette = {
  ...{ series, parts, dashed },
  link: series['invokeSync']!,
}

const names = Object.keys(series)

/** Drivers without a colour of their own share one. */
export function lookOf(driver: string): Look {
  const colour = names.includes(driver) ? driver : 'other'
  return { colour, shape: names.indexOf(colour) }
}
