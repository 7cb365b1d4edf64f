// `rfaas up`: a whole cluster in this process, until it is told to stop.
import { basename, relative } from 'node:path'
import { Command } from 'commander'

import { bytes, integer } from './options.js'
import { note, paint, print } from './output.js'
import { stopRequested } from './signals.js'

interface Flags {
  port: number
  cores?: number | string
  memory?: number
  dataDir?: string
  modulesDir?: string
  jsonLogs?: boolean
}

const defaultPort = 7070

export function upCommand(): Command {
  return new Command('up')
    .description('run a cluster of this one machine, until Ctrl-C')
    .option(
      '-p, --port <port>',
      'where clients connect, 0 for a free port',
      integer(0, 65535),
      defaultPort,
    )
    .option('--cores <cores>', "to lend: how many, or which, as in '0-3,8' (default: all)", cores)
    .option('--memory <size>', 'to lend (default: all)', bytes)
    .option('--data-dir <path>', 'keep leases and packages there (default: forget them)')
    .option('--modules-dir <path>', 'node_modules that functions may import from')
    .option('--json-logs', 'the address and JSON logs only; the default without a terminal')
    .addHelpText(
      'after',
      `
Standard output gets the URL, standard error the logs.

Examples:
  rfaas up
  rfaas up --port 0 --cores 2 --memory 1GiB`,
    )
    .action(up)
}

async function up({ jsonLogs, port, ...rest }: Flags): Promise<void> {
  // Before the start: a signal that comes early must not leave it half done.
  const stopped = stopRequested()
  const friendly = jsonLogs !== true && process.stdout.isTTY
  const [{ startLocalCluster }, { ReadableLog }] = await Promise.all([
    import('../local-cluster.js'),
    import('./log-lines.js'),
  ])
  const log = new ReadableLog()
  const cluster = await startLocalCluster({
    port,
    ...rest,
    ...(friendly ? { logLevel: 'info', logStream: log } : { logLevel: 'info' }),
  })
  if (friendly) await welcome(cluster.url, port)
  else await print(`${cluster.url}\n`)
  log.show()
  await stopped
  log.hide()
  await cluster.close()
  // The terminal shows ^C at the beginning of this line.
  if (friendly) note('\nrfaas has stopped')
}

async function welcome(url: string, port: number): Promise<void> {
  const { connect } = await import('./connect.js')
  const client = await connect({ url })
  const [node] = await client.nodes()
  const { formatBytes } = await import('../units.js')
  const lent = node === undefined ? '' : `${node.cores} cores, ${formatBytes(node.memoryBytes)}`
  const fabrics = node?.providers.flatMap(({ name, available }) => (available ? [name] : [])) ?? []
  const flag = port === defaultPort ? '' : ` --url ${url}`
  const rfaas = programName()
  const lines = [
    `rfaas is up at ${paint('bold', url)}  ${paint('dim', `(${lent}, ${fabrics.join(' and ')})`)}`,
    '',
    'Write a function and call it, in another terminal:',
    "  echo 'export const hello = (name) => Buffer.from(`Hello, ${Buffer.from(name)}\\n`)' > hello.mjs",
    `  printf world | ${rfaas} invoke hello.mjs hello --input -${flag}`,
    '',
    'See what there is:',
    `  ${rfaas} nodes${flag}`,
    `  ${rfaas} leases${flag}`,
    '',
    'From a program:',
    "  import { Client } from 'rfaas'",
    `  const client = await Client.connect('${url}')`,
    '',
    'Ctrl-C stops it. What functions print appears here.',
  ]
  await print(
    `${lines.map((line) => (line.startsWith('  ') ? paint('bold', line) : line)).join('\n')}\n\n`,
  )
  await client.close()
}

/** How the user can start this program again. */
function programName(): string {
  if (process.env['npm_command'] === 'exec') return 'npx rfaas'
  const script = process.argv[1] ?? 'rfaas'
  if (basename(script) === 'rfaas') return 'rfaas'
  const path = relative(process.cwd(), script)
  return `node ${path.startsWith('..') ? script : path}`
}

/** A count stays a number, ids stay text: '2' and '0-1' mean different things. */
function cores(text: string): number | string {
  return /^\d+$/.test(text) ? integer(1, 65536)(text) : text
}
