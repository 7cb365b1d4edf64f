// What the command lines of the managers have in common.
import { readFileSync } from 'node:fs'
import { CommanderError, InvalidArgumentError, type Command } from 'commander'

import { invalidArgument, RfaasError } from '../errors.js'

const wrongOption = 2

export function toPort(text: string): number {
  if (!/^\d{1,5}$/.test(text)) throw new InvalidArgumentError('must be an integer from 0 to 65535')
  return Number(text)
}

/** The flags that say who may come to a manager, and under which certificate. */
export function withSecurityFlags(command: Command): Command {
  return command
    .option('--keys-file <file>', 'API keys, made with rfaas keys; needed beyond loopback')
    .option('--tls-cert <file>', 'certificate of this manager (PEM): serve HTTPS')
    .option('--tls-key <file>', 'its private key (PEM, mode 0600)')
    .option('--allow-plaintext', 'do without TLS in a network where nobody can listen')
}

/** The options of a config file, whose keys must be among `names`, overruled by the flags. */
export function withConfig<Options extends object>(
  { config, ...flags }: Options & { config?: string },
  names: readonly string[],
): Options {
  return { ...(config === undefined ? {} : readConfig(config, names)), ...flags } as Options
}

function readConfig(path: string, names: readonly string[]): object {
  let value: unknown
  try {
    value = JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    throw new RfaasError(
      'ERR_RFAAS_INVALID_ARGUMENT',
      `config file ${path} cannot be used: ${(error as Error).message}`,
      { cause: error, field: 'config', value: path },
    )
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidArgument('config', value, 'a JSON object')
  }
  for (const key of Object.keys(value)) {
    if (!names.includes(key)) {
      throw invalidArgument(`a key of ${path}`, key, `one of ${names.join(', ')}`)
    }
  }
  return value
}

interface RunningManager {
  url: string
  /** Resolves when it cannot go on: a supervisor is to restart it. */
  failed?: Promise<RfaasError>
  close(): Promise<void>
}

/** Runs a manager until SIGTERM or SIGINT, then closes it. One that fails is closed too, and the process
 * ends with exit code 1. */
export async function serve(start: () => Promise<RunningManager>): Promise<void> {
  // Before the start: a signal that comes early must not leave the start half done.
  const signalled = new Promise<undefined>((resolve) => {
    // Batch systems repeat it: a second one must not end the process before its leases have ended.
    process.on('SIGTERM', () => resolve(undefined))
    process.once('SIGINT', () => resolve(undefined))
  })
  const manager = await start()
  // One line for scripts: the port may have been chosen by the system.
  process.stdout.write(`${manager.url}\n`)
  const failure = await Promise.race([signalled, ...(manager.failed ? [manager.failed] : [])])
  await manager.close()
  if (failure === undefined) return
  process.stderr.write(`${failure.message}\n`)
  // At once: LMDB, after a write that failed, does not survive that Node takes it down in order.
  process.exit(1)
}

/** The process of a manager alone: exit code 2 for wrong options, 1 for other failures. */
export async function runCommand(command: Command): Promise<void> {
  try {
    await command.exitOverride().parseAsync()
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has said what is wrong; --help ends here too, with 0.
      process.exitCode = error.exitCode === 0 ? 0 : wrongOption
      return
    }
    // What was raised on purpose says all in one sentence; anything else is a bug and shows where.
    const known = error instanceof RfaasError
    const text = known ? error.message : String((error as Error).stack)
    process.stderr.write(`${command.name()}: ${text}\n`)
    process.exitCode = known && error.code === 'ERR_RFAAS_INVALID_ARGUMENT' ? wrongOption : 1
  }
}
