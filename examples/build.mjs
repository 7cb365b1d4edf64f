#!/usr/bin/env node
// Compiles the native function packages among the examples: examples/<name>/*.cc becomes
// build/examples/<name>.so. What is newer than its sources stays.
import { spawn, spawnSync } from 'node:child_process'
import { mkdir, readdir, rename, stat } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const examples = dirname(fileURLToPath(import.meta.url))
const root = dirname(examples)
const include = join(root, 'native', 'include')
const output = join(root, 'build', 'examples')
// -fno-math-errno lets sqrt become one instruction. Nothing is tuned for the building machine:
// a package runs on whatever node the lease is on.
const flags = ['-std=c++20', '-O3', '-fno-math-errno', '-fvisibility=hidden', '-fPIC', '-shared']
const warnings = ['-Wall', '-Wextra']

try {
  await buildAll()
} catch (error) {
  console.error(`examples: ${error.message}`)
  process.exitCode = 1
}

async function buildAll() {
  await mkdir(output, { recursive: true })
  // This script is a source as well: it holds the flags.
  const common = [fileURLToPath(import.meta.url), join(include, 'rfaas', 'function.h')]
  let compiler
  for (const entry of await readdir(examples, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue
    const folder = join(examples, entry.name)
    const sources = (await readdir(folder)).filter((name) => name.endsWith('.cc')).sort()
    if (sources.length === 0) continue
    const paths = sources.map((name) => join(folder, name))
    const library = join(output, `${entry.name}.so`)
    if (await isNewer(library, [...common, ...paths])) continue
    compiler ??= findCompiler()
    await compile(compiler, paths, library)
    console.log(`examples: ${relative(root, library)}`)
  }
}

function findCompiler() {
  const candidates = process.env.CXX ? [process.env.CXX] : ['c++', 'g++', 'clang++']
  for (const candidate of candidates) {
    // CXX may carry arguments, as in "ccache g++".
    const [command, ...args] = candidate.trim().split(/\s+/)
    if (spawnSync(command, [...args, '--version'], { stdio: 'ignore' }).status === 0) {
      return [command, ...args]
    }
  }
  throw new Error(
    process.env.CXX
      ? `the compiler in the environment variable CXX, '${process.env.CXX}', cannot be run`
      : `no C++ compiler: none of ${candidates.join(', ')} can be run. Install g++ 10 or newer ` +
          `(Debian, Ubuntu: apt-get install g++) or name a compiler in the environment variable CXX`,
  )
}

async function isNewer(file, sources) {
  const built = await stat(file).catch(() => undefined)
  if (built === undefined) return false
  const times = await Promise.all(sources.map(async (source) => (await stat(source)).mtimeMs))
  return times.every((time) => time < built.mtimeMs)
}

async function compile([command, ...args], sources, library) {
  // Compiled beside and renamed: nobody ever sees half a library, and a process that has mapped
  // the old one keeps it.
  const unfinished = `${library}.${process.pid}`
  const parameters = [...args, ...flags, ...warnings, '-I', include, '-o', unfinished, ...sources]
  const status = await new Promise((resolve, reject) => {
    spawn(command, parameters, { stdio: 'inherit' }).once('error', reject).once('close', resolve)
  })
  if (status !== 0) throw new Error(`${[command, ...parameters].join(' ')} ended with ${status}`)
  await rename(unfinished, library)
}
