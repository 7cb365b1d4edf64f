// Where reports go, and in which format.
import { writeFile } from 'node:fs/promises'

import { CommandError } from './failure.js'
import { note } from './output.js'

export const reportFormats = ['text', 'csv', 'json', 'html'] as const
export type ReportFormat = (typeof reportFormats)[number]

export interface ReportFlags {
  format: ReportFormat
  output?: string
}

export async function writeReport(
  { format, output }: ReportFlags,
  print: (text: string) => Promise<void>,
  renderers: Readonly<Record<ReportFormat, () => string>>,
): Promise<void> {
  const text = renderers[format]()
  if (output === undefined) return print(text)
  try {
    await writeFile(output, text)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new CommandError(`the report could not be written: ${reason}`, { cause: error })
  }
  note(`written to ${output}`)
}
