// The report: one HTML file that needs nothing else.
import { describe } from '../machine.js'
import type { ResultFile } from '../results.js'
import { commandOf, evaluateTargets, formatMet, formatOutcome, type Outcome } from '../targets.js'
import { renderFigure } from '../../lib/plots/figure.js'
import { figuresOf } from './figures.js'
import { element, escape } from '../../lib/plots/markup.js'
import { htmlPage } from '../../lib/plots/page.js'
import { palette } from './palette.js'

export function renderPage(file: ResultFile): string {
  const figures = figuresOf(file.results)
  const outcomes = evaluateTargets([file]).filter(({ measured }) => measured !== undefined)
  const links = [
    ...(outcomes.length > 0 ? [{ id: 'targets', title: 'Targets' }] : []),
    ...figures,
    { id: 'method', title: 'Method' },
  ].map(({ id, title }) => element('a', { href: `#${id}` }, escape(title)))
  const body = [
    element('h1', {}, 'rfaas: measured'),
    ...describe(file.machine).map((text) => element('p', { class: 'quiet' }, escape(text))),
    element('nav', { 'aria-label': 'Figures' }, ...links),
    ...(outcomes.length > 0 ? [targets(outcomes)] : []),
    ...figures.map(renderFigure),
    method(file),
  ]
  return htmlPage(`rfaas: measured ${file.machine.date.slice(0, 10)}`, palette, body)
}

function targets(outcomes: readonly Outcome[]): string {
  const head = ['what', 'target', 'measured (over the rounds)', '', 'reproduce'].map((title) =>
    element('th', { scope: 'col', class: 'left' }, escape(title)),
  )
  const rows = outcomes.map((outcome) =>
    element(
      'tr',
      {},
      element('td', { class: 'wrap' }, code(outcome.target.what)),
      element('td', { class: 'left wrap' }, escape(outcome.target.target)),
      element('td', { class: 'left' }, escape(formatOutcome(outcome))),
      element(
        'td',
        { class: outcome.met === true ? 'left met' : 'left missed' },
        escape(formatMet(outcome)),
      ),
      element('td', { class: 'left wrap' }, element('code', {}, escape(commandOf(outcome.target)))),
    ),
  )
  return element(
    'section',
    { id: 'targets' },
    element('h2', {}, 'Targets'),
    element(
      'div',
      { class: 'scroll' },
      element(
        'table',
        { 'aria-label': 'Targets' },
        element('thead', {}, element('tr', {}, ...head)),
        element('tbody', {}, ...rows),
      ),
    ),
  )
}

/** Text with `code` in it. */
function code(text: string): string {
  return text
    .split('`')
    .map((part, i) => (i % 2 === 1 ? element('code', {}, escape(part)) : escape(part)))
    .join('')
}

function method({ skipped }: ResultFile): string {
  const sentences = [
    'Every time is a full round trip. Each round starts a fresh process per driver, warms it up, throws that away and measures; drivers take turns within a round, and each measurement stands between two of its floor. A ratio is that of a round to the mean of those two. Figures are medians over the rounds; bars, and “over the rounds”, are the smallest and the largest round.',
    'Percentiles come from an HDR histogram with three significant digits. All threads of the client are on one core, workers, servers and the other side of a floor on another. The cost of reading the clock is not subtracted.',
  ]
  return element(
    'section',
    { id: 'method' },
    element('h2', {}, 'Method'),
    ...sentences.map((sentence) => element('p', {}, escape(sentence))),
    ...skipped.map(({ trial, driver, reason }) =>
      element('p', { class: 'quiet' }, escape(`${trial}: ${driver} was not measured: ${reason}`)),
    ),
  )
}
