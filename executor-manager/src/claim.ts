// What only one process of a host may be: the manager of a folder, or a node of a cluster. Two of the
// same name would end each other's leases and lend the same cores.
import { createHash } from 'node:crypto'
import { createServer } from 'node:net'
import { RfaasError } from '../../lib/errors.js'

/** Claims `what` until the returned function is called, or this process ends: it is the name of an
 * abstract socket, which the kernel gives to one process and takes back when that is gone. */
export async function claim(what: string, field: string): Promise<() => void> {
  const name = createHash('sha256').update(what).digest('hex').slice(0, 32)
  const server = createServer((stranger) => stranger.destroy())
  server.unref()
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(taken(what, field, error)))
    server.listen(`\0rfaas-executor-manager-${name}`, resolve)
  })
  return () => void server.close()
}

function taken(what: string, field: string, error: NodeJS.ErrnoException): RfaasError {
  if (error.code !== 'EADDRINUSE') {
    return new RfaasError('ERR_RFAAS_INTERNAL', `${what} could not be claimed: ${error.message}`, {
      cause: error,
    })
  }
  return new RfaasError(
    'ERR_RFAAS_UNAVAILABLE',
    `another executor manager on this host is ${what}: stop it, or choose another ${field}`,
    { field },
  )
}
