// Where the package keeps what the manager spawns. Found from the package's root, because this file
// runs both as source and compiled into dist/.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { RfaasError } from '../../lib/errors.js'
import type { Runtime } from '../../lib/control/schemas.js'
import { packageRoot } from '../../lib/package-root.js'

export interface Program {
  command: string
  args: readonly string[]
}

/** The program of a runtime's workers; throws what to do when it has not been built. */
export function workerProgram(runtime: Runtime): Program {
  const root = packageRoot()
  if (runtime === 'native') {
    return { command: built(join(root, 'build/Release/rfaas-executor'), 'build:native'), args: [] }
  }
  const script = built(join(root, 'dist/executor-manager/runtimes/node/worker.js'), 'build:ts')
  return { command: process.execPath, args: [script] }
}

/** The launcher that confines workers. */
export function sandboxProgram(): string {
  return built(join(packageRoot(), 'build/Release/rfaas-sandbox'), 'build:native')
}

function built(path: string, script: string): string {
  if (existsSync(path)) return path
  throw new RfaasError(
    'ERR_RFAAS_EXECUTOR',
    `${path} is missing: run "npm run ${script}" in the rfaas package`,
  )
}
