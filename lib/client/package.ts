// A function package on its way to a node: read, named by its content, uploaded once per node.
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { extname } from 'node:path'

import { request, type CallOptions } from '../control/http.js'
import type { Runtime } from '../control/schemas.js'
import { invalidArgument, RfaasError } from '../errors.js'

const runtimes: Readonly<Record<string, Runtime>> = {
  '.so': 'native',
  '.mjs': 'node',
  '.js': 'node',
}

const uploadTimeoutMs = 120_000

export interface FunctionPackage {
  sha256: string
  runtime: Runtime
  code: Uint8Array
}

/** Reads the package at `path`; its ending tells the runtime. */
export async function readPackage(path: string): Promise<FunctionPackage> {
  const runtime = runtimes[extname(path)]
  if (runtime === undefined) {
    throw invalidArgument('package', path, 'a path that ends in .so (native) or .mjs (node)')
  }
  const code = await readFile(path).catch((cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new RfaasError('ERR_RFAAS_PACKAGE', `the package cannot be read: ${reason}`, {
      cause,
      field: 'package',
      value: path,
    })
  })
  return { sha256: createHash('sha256').update(code).digest('hex'), runtime, code }
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
