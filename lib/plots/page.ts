// A report as one HTML file that needs nothing else.
import { element, escape } from './markup.js'
import { styleOf, type Palette } from './style.js'

/** `body` is markup already. */
export function htmlPage(title: string, palette: Palette, body: readonly string[]): string {
  const head = [
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    element('title', {}, escape(title)),
    `<style>${styleOf(palette)}</style>`,
  ]
  return `<!doctype html>\n<html lang="en"><head>${head.join('')}</head><body>${element('main', {}, ...body)}</body></html>\n`
}
