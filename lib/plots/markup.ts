// Text into HTML and SVG. Everything that comes from a result file goes through escape().

export function escape(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
}

/** `children` are markup already. */
export function element(
  name: string,
  attributes: Readonly<Record<string, string | number>> = {},
  ...children: readonly string[]
): string {
  const text = Object.entries(attributes)
    .map(([key, value]) => ` ${key}="${escape(typeof value === 'number' ? short(value) : value)}"`)
    .join('')
  return `<${name}${text}>${children.join('')}</${name}>`
}

/** Coordinates need no more than a tenth. */
function short(value: number): string {
  return String(Math.round(value * 10) / 10)
}
