// What a manager shows to other hosts: nothing, until whoever comes has to prove himself and nobody
// can listen. And from its options to what its server needs: keys and certificates, loaded and
// followed.
import { RfaasError } from '../errors.js'
import { KeyRing } from './keys.js'
import type { Logger } from './log.js'
import { isLoopback } from './loopback.js'
import type { ServerOptions } from './server.js'
import { loadTls } from './tls.js'

/** Options of both managers. Paths are those of PEM files, which are followed when they change. */
export interface SecurityOptions {
  /** API keys (`rfaas keys`), mode 0600. */
  keysFile?: string
  /** Certificate of this manager: it then serves HTTPS. */
  tlsCert?: string
  /** Its private key, mode 0600. */
  tlsKey?: string
  /** Let keys and tokens cross the network unencrypted: only where nobody can listen. */
  allowPlaintext?: boolean
}

export interface Exposure {
  host: string
  /** The manager itself checks API keys. */
  needsKeys: boolean
}

/** Throws ERR_RFAAS_INVALID_ARGUMENT when `host` is for others and something is missing for that. */
export function checkExposure(
  { host, needsKeys }: Exposure,
  { keysFile, tlsCert, allowPlaintext }: SecurityOptions,
): void {
  if (isLoopback(host)) return
  if (needsKeys && keysFile === undefined) {
    throw refused(
      host,
      'nobody has to prove who he is: make keys with "rfaas keys add" and name their file with --keys-file (keysFile)',
    )
  }
  if (tlsCert === undefined && allowPlaintext !== true) {
    throw refused(
      host,
      'keys and tokens would cross the network unencrypted: name a certificate with --tls-cert and --tls-key (tlsCert, tlsKey), or allow it with --allow-plaintext (allowPlaintext) in a network where nobody can listen',
    )
  }
}

/** Whoever could change what is said on the way could make us believe other leases. */
export function checkEncrypted(
  field: string,
  url: string,
  allowPlaintext: boolean | undefined,
): void {
  const { protocol, hostname: host } = new URL(url)
  if (protocol === 'https:' || allowPlaintext === true || isLoopback(host)) return
  throw new RfaasError(
    'ERR_RFAAS_INVALID_ARGUMENT',
    `${field} is "${url}", which is not encrypted: use its https URL, or allow it with --allow-plaintext (allowPlaintext) in a network where nobody can listen`,
    { field, value: url, allowed: 'an https URL' },
  )
}

/** Throws ERR_RFAAS_INVALID_ARGUMENT when a file cannot be used. */
export function serverSecurity(
  { keysFile, tlsCert, tlsKey, nodeCa }: SecurityOptions & { nodeCa?: string },
  logger: Logger,
): Pick<ServerOptions, 'keys' | 'tls' | 'nodeCertificates'> {
  const fields = { cert: 'tlsCert', key: 'tlsKey', ca: 'nodeCa' }
  const encrypted = tlsCert !== undefined || tlsKey !== undefined
  return {
    keys: keysFile === undefined ? undefined : new KeyRing(keysFile, logger),
    tls: encrypted
      ? loadTls({ cert: tlsCert, key: tlsKey, ca: nodeCa }, fields, keptBefore(logger))
      : undefined,
    nodeCertificates: nodeCa !== undefined,
  }
}

/** For certificates that changed and cannot be used. */
export function keptBefore(logger: Logger): (error: unknown) => void {
  return (error) => logger.error({ err: error }, 'certificates not usable: those before go on')
}

function refused(host: string, why: string): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_INVALID_ARGUMENT',
    `host is "${host}", which other machines can reach, and ${why}; or use 127.0.0.1`,
    { field: 'host', value: host, allowed: 'a loopback address' },
  )
}
