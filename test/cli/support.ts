// What the tests of the command line share: the real program in processes of its own.
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

export const root = fileURLToPath(new URL('../..', import.meta.url))
const main = join(root, 'dist/lib/cli/main.js')
const cleanups: (() => unknown)[] = []

/** For afterEach: undoes everything in reverse order. */
export async function cleanUp(): Promise<void> {
  for (const undo of cleanups.splice(0).reverse()) await undo()
}

export function temporaryFolder(): string {
  const path = mkdtempSync(join(tmpdir(), 'rfaas-cli-'))
  cleanups.push(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** Compiles examples/hello/hello.cc; what is up to date stays. */
export async function helloPackages(): Promise<{ native: string; node: string }> {
  await promisify(execFile)(process.execPath, [join(root, 'examples/build.mjs')])
  return {
    native: join(root, 'build/examples/hello.so'),
    node: join(root, 'examples/hello/hello.mjs'),
  }
}

export interface Ended {
  code: number | NodeJS.Signals | null
  stdout: string
  stderr: string
}

export interface RunOptions {
  input?: string
  env?: Record<string, string>
}

function start(args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  const { RFAAS_URL: _url, RFAAS_DEBUG: _debug, ...inherited } = process.env
  return spawn(process.execPath, [main, ...args], { env: { ...inherited, ...env } })
}

/** Runs a command to its end. */
export async function rfaas(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  const child = start(args, options.env)
  cleanups.push(() => child.kill('SIGKILL'))
  const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)]
  child.stdin?.on('error', () => undefined) // not every command reads it
  child.stdin?.end(options.input ?? '')
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
  return { code: code ?? signal, stdout: stdout(), stderr: stderr() }
}

export interface Running {
  url: string
  child: ChildProcess
  stderr(): string
  /** Sends the signal and waits for the end. */
  end(signal: NodeJS.Signals): Promise<number | NodeJS.Signals | null>
}

/** Starts a command that prints its URL and stays. */
export async function rfaasServer(
  args: readonly string[],
  env?: Record<string, string>,
): Promise<Running> {
  const child = start(args, env)
  const stderr = collect(child.stderr)
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  const end = async (signal: NodeJS.Signals): Promise<number | NodeJS.Signals | null> => {
    child.kill(signal)
    const [code, by] = await exited
    return code ?? by
  }
  cleanups.push(() => end('SIGKILL'))
  if (child.stdout === null) throw new Error('unreachable')
  const first = await Promise.race([once(createInterface({ input: child.stdout }), 'line'), exited])
  if (typeof first[0] !== 'string') throw new Error(`${args.join(' ')} ended: ${stderr()}`)
  return { url: first[0], child, stderr, end }
}

/** A process that was started but whose output is not a URL: killed by cleanUp(). */
export function rfaasProcess(args: readonly string[]): {
  child: ChildProcess
  stderr(): string
  exited: Promise<[number | null, NodeJS.Signals | null]>
} {
  const child = start(args)
  cleanups.push(() => child.kill('SIGKILL'))
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  return { child, stderr: collect(child.stderr), exited }
}

/** Processes that descend from `pid`. */
export function descendants(pid: number): number[] {
  const children = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => parentOf(name) === pid)
    .map(Number)
  return [...children, ...children.flatMap(descendants)]
}

function parentOf(pid: string): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    return undefined // it has ended meanwhile
  }
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  let text = ''
  stream?.on('data', (chunk: Buffer) => (text += chunk.toString()))
  return () => text
}
