// A function package on its way to a node: read, named by its content, uploaded once per node.
import { createHash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { extname } from 'node:path'

import { request, type CallOptions } from '../control/http.js'
import { maxInlineCodeBytes, type ExecutorStart, type Runtime } from '../control/schemas.js'
import { invalidArgument, RfaasError } from '../errors.js'

const runtimes: Readonly<Record<string, Runtime>> = {
  '.so': 'native',
  '.mjs': 'node',
  '.js': 'node',
}

const uploadTimeoutMs = 120_000
const shortBytes = 256 * 1024

export interface FunctionPackage {
  sha256: string
  runtime: Runtime
  code: Uint8Array
}

/** What runs the package at `path`, by its ending. */
export function runtimeOf(path: string): Runtime {
  const runtime = runtimes[extname(path)]
  if (runtime !== undefined) return runtime
  throw invalidArgument('package', path, 'a path that ends in .so (native) or .mjs (node)')
}

export async function readPackage(path: string): Promise<FunctionPackage> {
  const runtime = runtimeOf(path)
  const code = await read(path).catch((cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new RfaasError('ERR_RFAAS_PACKAGE', `the package cannot be read: ${reason}`, {
      cause,
      field: 'package',
      value: path,
    })
  })
  return { sha256: createHash('sha256').update(code).digest('hex'), runtime, code }
}

/** A short file is read in less time than another thread takes to wake up. */
async function read(path: string): Promise<Uint8Array> {
  return statSync(path).size <= shortBytes ? readFileSync(path) : readFile(path)
}

/** Executor managers, each with a package that this process knows to be there, unless it was evicted since. */
const there = new Set<string>()
const mostThere = 4096

export function rememberThere(executorManager: string, { sha256 }: FunctionPackage): void {
  if (there.size >= mostThere) there.clear()
  there.add(`${executorManager} ${sha256}`)
}

/** A short package on its way with the request to start it, the first time. */
export function inlineCode(
  executorManager: string,
  { code, sha256 }: FunctionPackage,
): Pick<ExecutorStart, 'code'> {
  if (code.byteLength > maxInlineCodeBytes || there.has(`${executorManager} ${sha256}`)) return {}
  return { code: Buffer.from(code.buffer, code.byteOffset, code.byteLength).toString('base64') }
}

/** Ships the package to the node. */
export async function uploadPackage(
  executorManager: string,
  access: Pick<CallOptions, 'token' | 'transport' | 'timeoutMs'>,
  { sha256, code }: FunctionPackage,
): Promise<void> {
  const url = new URL(`/v1/code/${sha256}`, executorManager).href
  await request(url, { method: 'PUT', ...access, body: code, timeoutMs: uploadTimeoutMs })
}
