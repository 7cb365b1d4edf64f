// Certificates: files in PEM format, read again when they change. Private keys are for their owner.
import { readFileSync } from 'node:fs'
import { createSecureContext, type SecureContextOptions } from 'node:tls'
import { RfaasError } from '../errors.js'
import { Reloaded } from './reloaded.js'
import { readSecretFile } from './secret-file.js'

export interface TlsFiles {
  /** Certificate, and those between it and the authority's. */
  cert?: string | undefined
  /** Its private key, mode 0600. */
  key?: string | undefined
  /** Certificates of the authorities to believe. */
  ca?: string | undefined
}

/** Names of the options that the paths came from, for errors. */
export type TlsFields = Record<keyof TlsFiles, string>

/** What the files hold, checked: the key belongs to the certificate. Follows the files. */
export function loadTls(
  files: TlsFiles,
  fields: TlsFields,
  failed: (error: unknown) => void,
): Reloaded<SecureContextOptions> {
  const { cert, key, ca } = files
  if ((cert === undefined) !== (key === undefined)) {
    const missing = cert === undefined ? fields.cert : fields.key
    throw new RfaasError(
      'ERR_RFAAS_INVALID_ARGUMENT',
      `${missing} is missing: a certificate and its private key go together`,
      { field: missing, allowed: 'the path of a PEM file' },
    )
  }
  const paths = [cert, key, ca].filter((path) => path !== undefined)
  return new Reloaded({ paths, read: () => read(files, fields), failed })
}

function read({ cert, key, ca }: TlsFiles, fields: TlsFields): SecureContextOptions {
  const context: SecureContextOptions = {
    // Whatever NODE_OPTIONS say.
    minVersion: 'TLSv1.2',
    ...(cert === undefined ? {} : { cert: readPem(cert, fields.cert) }),
    ...(key === undefined ? {} : { key: readSecretFile(key, fields.key, 'the private key') }),
    ...(ca === undefined ? {} : { ca: readPem(ca, fields.ca) }),
  }
  try {
    createSecureContext(context)
  } catch (cause) {
    const named = [cert, key, ca].filter((path) => path !== undefined).join(', ')
    throw new RfaasError(
      'ERR_RFAAS_INVALID_ARGUMENT',
      `${named} cannot be used: ${(cause as Error).message}: they must be PEM files, and the key that of the certificate`,
      { cause, field: key === undefined ? fields.ca : fields.key },
    )
  }
  return context
}

function readPem(path: string, field: string): string {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    throw unusable(path, field, (cause as Error).message, cause)
  }
  // OpenSSL takes a file without any for an empty list, and then nobody can be believed.
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text
  throw unusable(path, field, 'it holds no certificate in PEM format')
}

function unusable(path: string, field: string, why: string, cause?: unknown): RfaasError {
  return new RfaasError('ERR_RFAAS_INVALID_ARGUMENT', `${field} ${path} cannot be used: ${why}`, {
    field,
    value: path,
    allowed: 'the path of a PEM file with certificates',
    ...(cause === undefined ? {} : { cause }),
  })
}
