// How the report looks. Ours are blue to green, peers warm, floors grey and dashed; every colour
// stands out from its background by at least 3:1, and no curve is told by its colour alone.

interface Colour {
  light: string
  dark: string
}

const drivers: Readonly<Record<string, Colour>> = {
  invokeSync: { light: '#0b57d0', dark: '#7db1ff' },
  native: { light: '#0b57d0', dark: '#7db1ff' },
  invoke: { light: '#00798c', dark: '#3fc9dc' },
  map: { light: '#8a2be2', dark: '#d0a0ff' },
  warm: { light: '#5a4bc8', dark: '#b0a5ff' },
  node: { light: '#1a7f37', dark: '#5fd07f' },
  nodeAwaited: { light: '#5d7a00', dark: '#b5d334' },
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

const parts: readonly Colour[] = [
  { light: '#7b61c4', dark: '#b7a4f5' },
  { light: '#00798c', dark: '#3fc9dc' },
  { light: '#0b57d0', dark: '#7db1ff' },
  { light: '#4d8f2e', dark: '#8fd06a' },
  { light: '#c26a00', dark: '#f2a54a' },
]

const dashed = ['floor', 'bareFloor', 'eventfd', 'memcpy', 'other']

const page = {
  light: {
    ...{ background: '#ffffff', text: '#1b1f24', quiet: '#57606a', rule: '#d5dae0' },
    ...{ raised: '#f5f7f9', met: '#116329', missed: '#a40e26' },
  },
  dark: {
    ...{ background: '#111418', text: '#e8ebef', quiet: '#9aa4af', rule: '#343b44' },
    ...{ raised: '#1a1f25', met: '#6fdd8b', missed: '#ff9492' },
  },
}

function variables(theme: 'light' | 'dark'): string {
  return [
    ...Object.entries(page[theme]).map(([name, value]) => `--${name}: ${value};`),
    ...Object.entries(drivers).map(([name, colour]) => `--s-${name}: ${colour[theme]};`),
    ...parts.map((colour, i) => `--p-${i}: ${colour[theme]};`),
  ].join(' ')
}

export const style = `
:root { color-scheme: light dark; ${variables('light')} }
@media (prefers-color-scheme: dark) { :root { ${variables('dark')} } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--background); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 21px; margin: 56px 0 6px; letter-spacing: -0.005em; }
p { margin: 8px 0; }
.quiet { color: var(--quiet); font-size: 14px; }
nav { margin: 20px 0 0; font-size: 14px; display: flex; flex-wrap: wrap; gap: 4px 16px; }
a { color: var(--s-invokeSync); }
figure { margin: 16px 0 0; }
.scroll { overflow-x: auto; }
svg { display: block; width: 100%; min-width: 620px; height: auto;
  font-family: inherit; font-size: 13px; }
figcaption { color: var(--quiet); font-size: 14px; margin-top: 6px; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums;
  margin-top: 14px; min-width: 100%; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th { color: var(--quiet); font-weight: 600; }
thead th { white-space: normal; vertical-align: bottom; line-height: 1.3; }
th:first-child, td:first-child, .left { text-align: left; }
td.wrap { white-space: normal; min-width: 170px; }
tbody th { color: var(--text); font-weight: 400; }
tr:hover td, tr:hover th { background: var(--raised); }
code { font: 12.5px/1.4 ui-monospace, 'Liberation Mono', monospace; }
.met { color: var(--met); font-weight: 600; }
.missed { color: var(--missed); font-weight: 600; }
svg text { fill: var(--text); }
svg .halo { paint-order: stroke; stroke: var(--background); stroke-width: 5; }
svg .tick { fill: var(--quiet); font-size: 12px; }
svg .name { fill: var(--quiet); font-size: 13px; }
.grid { stroke: var(--rule); stroke-width: 1; }
.axis { stroke: var(--quiet); stroke-width: 1; }
.curve { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.mark { fill: var(--c); stroke: var(--background); stroke-width: 1; }
.bar { stroke: var(--c); stroke-width: 1.5; opacity: 0.6; }
.lead { stroke: var(--c); stroke-width: 1; opacity: 0.45; }
.fill { fill: var(--c); }
${Object.keys(drivers)
  .map((name) => `.s-${name} { --c: var(--s-${name}); }`)
  .join('\n')}
${parts.map((_, i) => `.p-${i} { --c: var(--p-${i}); }`).join('\n')}
${dashed.map((name) => `.s-${name} .curve`).join(', ')} { stroke-dasharray: 6 4; }
@media print { h2 { break-after: avoid; } figure { break-inside: avoid; } }
`
