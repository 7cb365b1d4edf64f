// `rfaas doctor`: what this host can do, and what to change.
import { Command, Option } from 'commander'

import { checkConfinement } from './doctor-confinement.js'
import { checkDefault, checkRdma, type Finding, type Verdict } from './doctor-checks.js'
import { checkManagers } from './doctor-managers.js'
import { exitFailure } from './failure.js'
import { jsonOption } from './options.js'
import { paint, print, printable, printJson, type Style } from './output.js'

const marks: Record<Verdict, [string, Style]> = {
  ok: ['✔', 'green'],
  note: ['!', 'yellow'],
  failed: ['✘', 'red'],
}

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('tell whether this host can run rfaas, and whether it can do RDMA')
    .addOption(new Option('--url <urls>', 'resource managers to ask, too').env('RFAAS_URL'))
    .option('--ca <file>', "authorities of the managers' certificates (default: RFAAS_CA)")
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
✔ is fine, ! is not possible yet, ✘ has to be changed. Exit code 0 means that rfaas works over
shared memory, with or without RDMA, and that a resource manager answers if any was named; 1 that it does not.`,
    )
    .action(async ({ json = false, url, ca }: { json?: boolean; url?: string; ca?: string }) => {
      const sharedMemory = await checkDefault()
      const rdma = await checkRdma()
      const confinement = await checkConfinement()
      const managers = url === undefined ? [] : await checkManagers(url, ca)
      const works = sharedMemory.every(({ verdict }) => verdict !== 'failed')
      const hasRdma = rdma.at(-1)?.verdict === 'ok'
      const reached = managers.every(({ verdict }) => verdict !== 'failed')
      if (!works || !reached) process.exitCode = exitFailure
      if (json)
        return printJson({
          works,
          rdma: hasRdma,
          findings: { sharedMemory, confinement, rdma, managers },
        })
      await print(
        [
          section('On this host, over shared memory', sharedMemory),
          section('What keeps functions in', confinement),
          section('Between hosts, over RDMA', rdma),
          ...(managers.length === 0 ? [] : [section('Resource managers', managers)]),
          `${conclusion(works, hasRdma)}\n`,
        ].join('\n'),
      )
    })
}

function section(title: string, findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length)) + 2
  const indent = ' '.repeat(width + 4)
  let text = `${paint('bold', title)}\n`
  for (const { name, verdict, found, change } of findings) {
    const [mark, style] = marks[verdict]
    text += `  ${paint(style, mark)} ${name.padEnd(width)}${lines(found, indent)}\n`
    if (change !== undefined && change !== '')
      text += `${indent}→ ${lines(change, `${indent}  `)}\n`
  }
  return text
}

function conclusion(works: boolean, hasRdma: boolean): string {
  if (!works) return paint('red', 'rfaas does not work here: change what is marked ✘.')
  const rdma = hasRdma ? 'and over RDMA' : 'but not over RDMA'
  return `rfaas works here over shared memory, ${rdma}.`
}

function lines(text: string, indent: string): string {
  return text.split('\n').map(printable).join(`\n${indent}`)
}
