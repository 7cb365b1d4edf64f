// The folder with the sockets of this manager's workers. It names its owner, so that the next manager
// removes what one that was killed has left behind.
import {
  chmodSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { inspect } from '../../lib/control/check.js'
import { isRunning, ProcessIdentity, thisProcess } from '../../lib/control/process-identity.js'
import { invalidArgument, RfaasError } from '../../lib/errors.js'

const prefix = 'rfaas-'
const ownerFile = 'owner.json'

/** A fresh folder that only this user can list and write to. Clients of other users are let through to
 * the sockets that root has given to them. Short enough for the names that go into it. */
export function createSocketFolder(parent: string): string {
  try {
    removeAbandoned(parent)
    const path = mkdtempSync(join(parent, prefix))
    if (process.geteuid?.() === 0) chmodSync(path, 0o711)
    writeFileSync(join(path, ownerFile), JSON.stringify(thisProcess()), { mode: 0o600 })
    return path
  } catch (error) {
    throw new RfaasError(
      'ERR_RFAAS_INVALID_ARGUMENT',
      `runtimeDir ${parent} cannot be used (${(error as NodeJS.ErrnoException).code}): name a folder that this user can write to`,
      { cause: error, field: 'runtimeDir', value: parent },
    )
  }
}

// What mkdtemp adds to the prefix.
const randomCharacters = 6
const addressBytes = 107

/** Addresses of UNIX sockets end after 107 bytes, with the folder and a socket in it. */
export function checkSocketFolderLength(parent: string): void {
  const folder = `/${prefix}`.length + randomCharacters
  const most = addressBytes - folder - '/w-0123456789abcdef'.length
  if (Buffer.byteLength(parent) > most) {
    throw invalidArgument('runtimeDir', parent, `at most ${most} bytes, for names of UNIX sockets`)
  }
}

/** Others may write to the parent: only what is a folder of this user's and names a process that has
 * ended is ours to remove. */
function removeAbandoned(parent: string): void {
  for (const name of readdirSync(parent)) {
    if (!name.startsWith(prefix)) continue
    const path = join(parent, name)
    try {
      const { uid } = lstatSync(path)
      if (uid !== process.getuid?.()) continue
      const owner: unknown = JSON.parse(readFileSync(join(path, ownerFile), 'utf8'))
      if (inspect(ProcessIdentity, owner) !== undefined) continue
      if (isRunning(owner as ProcessIdentity)) continue
      rmSync(path, { recursive: true, force: true })
    } catch {
      // Not one of these folders, or another manager was faster.
    }
  }
}
