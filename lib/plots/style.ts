// How reports look: a page that follows the reader's light or dark mode, and plots in the colours of a
// palette.

export interface Colour {
  light: string
  dark: string
}

/** Every colour has to stand out from its background by at least 3:1, and no curve is told by its colour
 * alone. */
export interface Palette {
  /** By name: the colours of curves and bars. */
  series: Readonly<Record<string, Colour>>
  /** Of the parts of bars, in order. */
  parts: readonly Colour[]
  /** Names of series whose curves are dashed. */
  dashed: readonly string[]
  link: Colour
}

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

function variables({ series, parts, link }: Palette, theme: 'light' | 'dark'): string {
  return [
    `--link: ${link[theme]};`,
    ...Object.entries(page[theme]).map(([name, value]) => `--${name}: ${value};`),
    ...Object.entries(series).map(([name, colour]) => `--s-${name}: ${colour[theme]};`),
    ...parts.map((colour, i) => `--p-${i}: ${colour[theme]};`),
  ].join(' ')
}

export function styleOf(palette: Palette): string {
  const { series, parts, dashed } = palette
  return `
:root { color-scheme: light dark; ${variables(palette, 'light')} }
@media (prefers-color-scheme: dark) { :root { ${variables(palette, 'dark')} } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--background); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 21px; margin: 56px 0 6px; letter-spacing: -0.005em; }
p { margin: 8px 0; }
.quiet { color: var(--quiet); font-size: 14px; }
nav { margin: 20px 0 0; font-size: 14px; display: flex; flex-wrap: wrap; gap: 4px 16px; }
a { color: var(--link); }
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
${Object.keys(series)
  .map((name) => `.s-${name} { --c: var(--s-${name}); }`)
  .join('\n')}
${parts.map((_, i) => `.p-${i} { --c: var(--p-${i}); }`).join('\n')}
${dashed.map((name) => `.s-${name} .curve { stroke-dasharray: 6 4; }`).join('\n')}
@media print { h2 { break-after: avoid; } figure { break-inside: avoid; } }
`
}
