// Runs a state machine on aws-local-stepfunctions, with answers for its Task states from a script.
//
// Standard input: {"module", "definition", "cases": [{"input", "answers": {state: [answer, …]}}]},
// where an answer is {"value"} or {"error", "cause"}. Standard output: [{"output", "asked"}], where
// "asked" is [[state, its effective input], …] in order.
import { readFileSync } from 'node:fs';

const { module, definition, cases } = JSON.parse(readFileSync(0, 'utf8'));
const { StateMachine } = await import(module);
const names = Object.keys(definition.States);
const machine = new StateMachine(definition, { validationOptions: { checkArn: false } });

async function run({ input, answers }) {
  const asked = [];
  const handlers = Object.fromEntries(
    names
      .filter((name) => definition.States[name].Type === 'Task')
      .map((name) => [
        name,
        (given) => {
          asked.push([name, structuredClone(given)]);
          const answer = answers[name].shift();
          if (answer === undefined) throw new Error(`no answer is left for ${name}`);
          if (answer.error === undefined) return answer.value;
          const error = new Error(answer.cause);
          error.name = answer.error;
          throw error;
        },
      ]),
  );
  const none = Object.fromEntries(names.map((name) => [name, 0]));
  const execution = machine.run(input, {
    overrides: {
      taskResourceLocalHandlers: handlers,
      waitTimeOverrides: none,
      retryIntervalOverrides: none,
    },
    context: {},
  });
  return { output: await execution.result, asked };
}

const results = [];
for (const one of cases) results.push(await run(one));
console.log(JSON.stringify(results));
