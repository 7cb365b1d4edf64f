// Tests import TypeScript directly, but the processes that they start run dist/ and the addon. A
// stale dist/ would test yesterday's code, so it is compiled here.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

export function setup(): void {
  if (!['Release', 'Debug'].some((kind) => existsSync(join(root, 'build', kind, 'rfaas.node')))) {
    throw new Error('The native addon is not built. Run: npm run build:native')
  }
  const stale = ['lib', 'executor-manager', 'resource-manager', 'examples', 'bench']
    .flatMap((folder) => sources(join(root, folder)))
    .map((file) => relative(root, file))
    .find((file) => !isFresh(join(root, file), join(root, 'dist', file.replace(/\.ts$/, '.js'))))
  if (stale !== undefined) compile(stale)
}

function compile(stale: string): void {
  console.warn(`${stale} is newer than dist/: compiling`)
  const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')
  // The browser's part knows other globals: it is a project of its own.
  for (const project of ['tsconfig.json', 'resource-manager/dashboard']) {
    const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', project], {
      cwd: root,
      encoding: 'utf8',
    })
    // Types are checked by `npm run build:ts`; what was emitted behaves as the tests will tell.
    if (status !== 0) console.warn(stdout)
  }
}

function sources(folder: string): string[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
    .filter((name) => !name.includes('node_modules'))
    .map((name) => join(folder, name))
}

function isFresh(source: string, compiled: string): boolean {
  return existsSync(compiled) && statSync(compiled).mtimeMs >= statSync(source).mtimeMs
}
