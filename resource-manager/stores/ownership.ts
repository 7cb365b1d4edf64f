// Two managers on one data directory would grant the same cores. The kernel's lock on a file in it is
// that of one open file, whichever namespaces its process lives in, and gone when that is.
import { spawnSync } from 'node:child_process'
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { RfaasError } from '../../lib/errors.js'

const lockWithinMs = 10_000

/** Makes this manager the only one on the directory, until the returned function is called. */
export function ownDataDir(dataDir: string): () => void {
  const path = join(dataDir, 'owner')
  const file = openSync(path, 'a+', 0o600)
  try {
    lock(file, path, dataDir)
    // Only for people, and for the error of whoever comes next.
    ftruncateSync(file)
    writeSync(file, `${process.pid}\n`)
  } catch (error) {
    closeSync(file)
    throw error
  }
  return () => closeSync(file)
}

/** flock(1) gets our open file, and what it locks stays locked when it has ended. */
function lock(file: number, path: string, dataDir: string): void {
  const stdio = ['ignore', 'ignore', 'ignore', file] as const
  const { status, error } = spawnSync('flock', ['-n', '3'], {
    stdio: [...stdio],
    timeout: lockWithinMs,
  })
  if (status === 0) return
  if (status === 1) {
    const holder = readFileSync(path, 'utf8').trim()
    throw new RfaasError(
      'ERR_RFAAS_UNAVAILABLE',
      `the data directory ${dataDir} is in use by the resource manager with process id ${holder}: stop it or choose another directory`,
      { field: 'dataDir', value: dataDir },
    )
  }
  const why = error?.message ?? `flock ended with ${status}`
  throw new RfaasError(
    'ERR_RFAAS_INTERNAL',
    `the file ${path} cannot be locked (${why}): flock of util-linux has to be installed, and the file system has to know locks`,
    error === undefined ? {} : { cause: error },
  )
}
