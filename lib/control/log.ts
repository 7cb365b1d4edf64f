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

const secrets = ['authorization', 'token', 'ticket', 'privateKey']

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
    },
    // Synchronous: the last line before a crash is the one that matters.
    options.stream ?? destination({ dest: 2, sync: true }),
  )
}
