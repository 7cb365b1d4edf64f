// Reads a trace, whatever its format is; files may be compressed with gzip.
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { isSamples, readSamples } from './samples.js'
import { isSlurmTable, readSlurmJobs } from './slurm-jobs.js'
import { readSwf } from './swf.js'
import { unusableTrace, type MachineOptions, type Trace } from './trace.js'

/** What a string of JavaScript can hold. */
const maxBytes = 512 * 2 ** 20

export function readTrace(path: string, machine: MachineOptions): Trace {
  const source = basename(path)
  const text = textOf(path)
  const firstLine = text.slice(0, 10_000).split('\n', 1)[0] ?? ''
  if (isSamples(firstLine)) return readSamples(text, source)
  if (isSlurmTable(firstLine)) return readSlurmJobs(text, source, machine)
  if (/^\s*(;|-?\d)/.test(firstLine)) return readSwf(text, source, machine)
  throw unusableTrace(
    path,
    'is none of: samples of `rfaas utilization record`, a table of sacct or squeue with a line of names, Standard Workload Format',
  )
}

export function textOf(path: string): string {
  try {
    const bytes = readFileSync(path)
    const compressed = bytes[0] === 0x1f && bytes[1] === 0x8b
    const plain = compressed ? gunzipSync(bytes, { maxOutputLength: maxBytes }) : bytes
    if (plain.byteLength > maxBytes) throw new Error('it is larger than 512 MiB: split it')
    return plain.toString()
  } catch (error) {
    throw unusableTrace(
      path,
      `cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
}
