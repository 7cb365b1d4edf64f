// Files that only their owner may read.
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { RfaasError } from '../errors.js'

const maxBytes = 16 * 1024 * 1024

/** The text of a file that holds secrets; refuses one that somebody else could have read or written.
 * `field` is the option that names it, `what` says what it is. */
export function readSecretFile(path: string, field: string, what: string): string {
  const refuse = (why: string, cause?: unknown): RfaasError =>
    new RfaasError('ERR_RFAAS_INVALID_ARGUMENT', `${what} ${path} ${why}`, {
      field,
      value: path,
      allowed: 'the path of a file that only its owner may read',
      ...(cause === undefined ? {} : { cause }),
    })
  let file: number
  try {
    file = openSync(path, 'r')
  } catch (error) {
    throw refuse(`cannot be read: ${(error as Error).message}`, error)
  }
  try {
    // Of the file that is open, not of the name, which may mean another one by now.
    const { mode, uid, size } = fstatSync(file)
    if ((mode & 0o170000) !== 0o100000) throw refuse('is not a file')
    if ((mode & 0o077) !== 0) throw refuse(`can be read by other users: chmod 600 ${path}`)
    if (uid !== 0 && uid !== process.geteuid?.()) {
      throw refuse(`belongs to another user (uid ${uid}): chown it to the one that runs this`)
    }
    if (size > maxBytes) throw refuse(`is longer than ${maxBytes} bytes`)
    return readFileSync(file, 'utf8')
  } finally {
    closeSync(file)
  }
}
