// Which host this is: two processes with the same id can use the shm provider with each other.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

import { RfaasError } from './errors.js'

/** The same for all processes under one kernel, without telling the machine id (machine-id(5) asks
 * for that). The boot id is part of it because cloned images share their machine id. */
export function hostId(): string {
  return (known ??= find())
}

let known: string | undefined

function find(): string {
  const machine = read('/etc/machine-id')
  const boot = read('/proc/sys/kernel/random/boot_id')
  if (machine === '' && boot === '') {
    throw new RfaasError('ERR_RFAAS_INTERNAL', 'this host has neither a machine id nor a boot id')
  }
  return createHash('sha256').update(`rfaas host\n${machine}\n${boot}`).digest('hex').slice(0, 32)
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return ''
  }
}
