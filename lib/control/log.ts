// Logs of the managers: JSON lines (pino). Secrets never reach them, whatever object is logged.
import { destination, pino, stdTimeFunctions, type DestinationStream, type Logger } from 'pino'
import { invalidArgument } from '../errors.js'

export type { Logger } from 'pino'

export const logLevels = ['silent', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const
export type LogLevel = (typeof logLevels)[number]

export interface LogOptions {
  /** Goes into every line, e.g. `resource-manager`. */
  name: string
  level?: LogLevel
  /** Default: standard error, so that standard output stays for results. */
  stream?: DestinationStream
}

const secrets = ['authorization', 'token', 'tokens', 'ticket', 'key', 'secret', 'privateKey']

export function createLogger(options: LogOptions): Logger {
  const level = options.level ?? 'info'
  if (!logLevels.includes(level)) {
    throw invalidArgument('logLevel', level, `one of ${logLevels.join(', ')}`)
  }
  return pino(
    {
      name: options.name,
      level,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: {
        paths: secrets.flatMap((key) => [key, `*.${key}`, `*.*.${key}`, `*[*].${key}`]),
        censor: '[redacted]',
      },
      hooks: { streamWrite: withoutCredentials },
    },
    // Synchronous: the last line before a crash is the one that matters.
    options.stream ?? destination({ dest: 2, sync: true }),
  )
}

/** Secrets are redacted by the names of their fields above. Those that can be told by their looks are
 * also found inside of texts: API keys and lease tokens. */
export function withoutCredentials(text: string): string {
  return text
    .replace(/rfk_([a-z0-9]{4,32})_[A-Za-z0-9_-]{43}/g, 'rfk_$1_[redacted]')
    .replace(/[A-Za-z0-9_-]{40,}\.[A-Za-z0-9_-]{86}(?![A-Za-z0-9_-])/g, '[redacted]')
}
