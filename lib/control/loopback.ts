// Which addresses only this host can reach.
import { isIPv4, isIPv6 } from 'node:net'

/** An address or name to listen on or to connect to, also as it stands in a URL. A name other than
 * localhost may resolve to anything, today or tomorrow. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, '$1')
  if (isIPv4(bare)) return bare.startsWith('127.')
  return isIPv6(bare) ? bare === '::1' || bare.startsWith('::ffff:127.') : bare === 'localhost'
}
