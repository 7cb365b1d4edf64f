// docs/failures.md: its table is made from the scenarios, so that it can promise nothing that is not
// tested.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { packageRoot } from '../../lib/package-root.js'
import { matrix } from './matrix.js'

const path = join(packageRoot(), 'docs/failures.md')
const begin = '<!-- made by npm run test:faults -- --write-docs -->'
const end = '<!-- end -->'

export function renderMatrix(): string {
  const sections = matrix.map(({ title, scenarios }) => {
    const rows = scenarios.map(
      ({ name, fault, promise }) => `| ${capital(fault)} | ${promise} | \`${name}\` |`,
    )
    const head = ['| fault | what the caller gets | test |', '| --- | --- | --- |']
    return [`### ${title}`, '', ...head, ...rows].join('\n')
  })
  return sections.join('\n\n')
}

/** What is in the document now. */
export function documentedMatrix(): string {
  const { table } = split()
  return table
}

export function writeDocument(): void {
  const { before, after } = split()
  writeFileSync(path, `${before}${begin}\n\n${renderMatrix()}\n\n${end}${after}`)
}

function split(): { before: string; table: string; after: string } {
  const text = readFileSync(path, 'utf8')
  const [before, rest] = cut(text, begin)
  const [table, after] = cut(rest, end)
  return { before, table: table.trim(), after }
}

function cut(text: string, mark: string): [string, string] {
  const at = text.indexOf(mark)
  if (at < 0) throw new Error(`${path} has no line ${mark}`)
  return [text.slice(0, at), text.slice(at + mark.length)]
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)
