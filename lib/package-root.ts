// The folder of the rfaas package. The same file runs as lib/ and compiled as dist/lib/.
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { RfaasError } from './errors.js'

export function packageRoot(): string {
  const here = dirname(fileURLToPath(import.meta.url))
  for (const root of [dirname(here), dirname(dirname(here))]) {
    if (existsSync(join(root, 'package.json'))) return root
  }
  throw new RfaasError('ERR_RFAAS_INTERNAL', 'the package is incomplete: package.json is missing')
}

export function packageVersion(): string {
  const text = readFileSync(join(packageRoot(), 'package.json'), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
